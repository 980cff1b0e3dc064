from pathlib import Path
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


def test_backbones_are_listed_with_what_was_found_out_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    rows = {row["name"]: row for row in list_rows("backbones", "test_vit") + list_rows("backbones", "test_resnet")}
    assert rows["test_resnet"] == {
        "name": "test_resnet",
        "library": "timm",
        "pretrained": "yes",
        "kind": "cnn",
        "strides": "2-32",
        "exchange": "yes",
        "prefix": "no",
    }
    assert (rows["test_vit"]["kind"], rows["test_vit"]["strides"], rows["test_vit"]["prefix"]) == (
        "transformer",
        "16",
        "yes",
    )
    (file,) = (tmp_path / "backbones").iterdir()
    file.write_text(file.read_text().replace("cnn", "remembered"))
    assert list_rows("backbones", "test_resnet")[0]["kind"] == "remembered"
    file.write_text("damaged")
    assert list_rows("backbones", "test_resnet")[0]["kind"] == "cnn"


def test_a_model_that_is_no_backbone_says_so_and_a_long_list_is_not_tried_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    (row,) = list_rows("backbones", "alexnet", "torchvision")
    assert (row["kind"], row["exchange"], row["prefix"]) == ("none", "no", "no")
    rows = list_rows("backbones", "", "torchvision")
    assert len(rows) > 64
    assert {row["exchange"] for row in rows if row["name"] != "alexnet"} == {"?"}
    with pytest.raises(HarnessError, match="'torch' is not a backbone library"):
        list_rows("backbones", "", "torch")
    with pytest.raises(HarnessError, match="ls heads: --library and --check speak of backbones only"):
        list_rows("heads", library="timm")
