from typing import get_args

import pytest

from harness.cards import AdapterName
from harness.data import ADAPTERS, KEYS
from harness.errors import HarnessError
from harness.listing import list_rows


def test_every_adapter_that_a_card_can_name_is_listed_with_task_keys_and_one_line() -> None:
    rows = {row["name"]: row for row in list_rows("adapters")}
    assert set(rows) == set(ADAPTERS) == set(KEYS) == set(get_args(AdapterName))
    assert rows["voc"]["task"] == "detection"
    assert rows["voc"]["keys"] == "images annotations names (image_suffix)"
    assert rows["voc"]["about"].startswith("Images with boxes in PASCAL VOC's XML.")
    assert all(row["about"] for row in rows.values())


def test_an_unknown_listing_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(HarnessError, match=r"ls: 'adapter' is not a listing; did you mean 'adapters'\?"):
        list_rows("adapter")
