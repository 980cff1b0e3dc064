"""The section on placeholder samples: what it refuses, and what it does to a fingerprint."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from tests_support import document

from harness.errors import HarnessError
from harness.submission import Submission
from harness.training.devices import check_batches
from harness.training.placeholders.samples_config import SamplesConfig

COLUMN = {"backbone": {"name": "test_resnet", "frozen": "all"}}


def raw(samples: dict[str, Any], **changes: Any) -> dict[str, Any]:
    found = document()
    for task in found["tasks"]:
        task["fraction"] = 0.25
    found["training"]["placeholders"] = {"samples": samples}
    for section, value in changes.items():
        found[section] |= value
    return found


def submission(samples: dict[str, Any], **changes: Any) -> Submission:
    return Submission.model_validate(raw(samples, **changes))


@pytest.mark.parametrize(
    "samples",
    [
        {"ratio": 1},
        {"ratio": 2, "kind": "distilled"},
        {"ratio": 2, "threshold": 0.9},
        {"ratio": 2, "selection": "k_center"},
    ],
)
def test_what_is_switched_on_changes_the_fingerprint(samples: dict[str, Any]) -> None:
    others = {submission(one).fingerprint() for one in ({"ratio": 0}, {"ratio": 2})}
    assert submission(samples).fingerprint() not in others


def test_off_is_off_whatever_else_is_written() -> None:
    off = submission({"ratio": 0, "kind": "distilled", "temperature": 3, "weight": 2})
    assert off.fingerprint() == submission({}).fingerprint()
    assert off.training.placeholders.samples == SamplesConfig()


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ({"ratio": 1, "temperature": 3}, "temperature: 3, but kind: random has none; it is for distilled"),
        ({"ratio": 1, "kind": "adversarial", "threshold": 0.9}, "threshold: 0.9, but kind: adversarial has none"),
        ({"ratio": 1, "epsilon": 0.1}, "epsilon: 0.1, but kind: random has none; it is for adversarial"),
        ({"ratio": 0.2}, "0.2 of the batch_size 2 of shapes-detection is less than half an image"),
        ({"ratio": 1, "kind": "nearest"}, "kind"),
        ({"ratio": 1, "threshold": 1.0}, "less than 1"),
    ],
)
def test_what_cannot_be_is_refused_in_words(samples: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        submission(samples)


def test_without_a_fraction_there_is_no_unlabelled_image() -> None:
    content = raw({"ratio": 1})
    for task in content["tasks"]:
        task["fraction"] = 1.0
    with pytest.raises(ValidationError, match="every task trains on all its labels"):
        Submission.model_validate(content)
    content["tasks"][0]["fraction"] = 0.5
    assert Submission.model_validate(content).training.placeholders.samples.ratio == 1


def test_a_frozen_backbone_gives_no_gradient_to_the_pixels() -> None:
    with pytest.raises(ValidationError, match="take kind random or distilled"):
        submission({"ratio": 1, "kind": "adversarial"}, model=COLUMN)
    assert submission({"ratio": 1}, model=COLUMN).model.backbone.frozen == "all"


def test_what_depends_on_the_data_set_is_refused_with_its_name() -> None:
    blind = {"heads": {"vqa": {"question_only": True}}}
    with pytest.raises(HarnessError, match="shapes-vqa does not see"):
        submission({"ratio": 1}, model=blind).cards()
    regions = {"heads": {"detection": {"name": "faster_rcnn"}}, "placeholders": {"count": 4, "placement": "output"}}
    with pytest.raises(HarnessError, match="take fcos, or another placement"):
        submission({"ratio": 1}, model=regions).cards()
    content = raw({"ratio": 1}, training={"selection": {"every": 2}})
    content["training"]["placeholders"] = {"samples": {"ratio": 1}}
    content["tasks"] = [{"dataset": "pets", "batch_size": 4, "image_size": 64, "fraction": 0.5}]
    with pytest.raises(HarnessError, match=r"pets: training.selection looks at the training images"):
        Submission.model_validate(content).cards()


def test_every_process_needs_a_part_of_the_unlabelled_batch() -> None:
    small = submission({"ratio": 0.5})
    check_batches(small, 1)
    with pytest.raises(
        HarnessError, match=r"ratio: 0.5 of the batch_size 2 of shapes-detection cannot be split into 2"
    ):
        check_batches(small, 2)


@pytest.mark.parametrize(("ratio", "batch", "expected"), [(0.5, 1, 1), (0.5, 3, 2), (2, 3, 6), (7, 24, 168)])
def test_halves_of_an_image_are_rounded_up(ratio: float, batch: int, expected: int) -> None:
    assert SamplesConfig(ratio=ratio).batch_size(batch) == expected


def test_single_task_baselines_have_no_placeholder_samples() -> None:
    from harness.single_task import single_task

    content = raw({"ratio": 1})
    content["tasks"][0]["fraction"] = 1.0
    on = Submission.model_validate(content)
    off = Submission.model_validate(content | {"training": content["training"] | {"placeholders": {}}})
    for name in ("shapes-classification", "shapes-vqa"):
        assert single_task(on, name).fingerprint() == single_task(off, name).fingerprint()
