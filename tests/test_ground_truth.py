"""Statistics that were handed in against the data that is here: what no prediction changes must be the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.cards import SegmentationClass, load_card
from harness.data import open_split
from harness.data.samples import Adapter
from harness.errors import HarnessError
from harness.evaluation import classification, detection, segmentation, vqa
from harness.evaluation.label_map import LabelMap
from harness.evaluation.metric import Result
from harness.ground_truth import check_card, check_truth

Arrays = dict[str, np.ndarray]
REAL = [[0, 1], [], *([[2]] * 6)]


def split(task: str) -> Adapter:
    return open_split(load_card(f"shapes-{task}"), "test")


def scored(adapter: Any) -> Result:
    """Some predictions, of which not all are right."""
    if adapter.task == "classification":
        predicted = (np.asarray(adapter.labels) + (np.arange(len(adapter)) < 2)) % len(adapter.classes)
        return classification.evaluate(adapter.labels, predicted, adapter.ids, adapter.classes)
    if adapter.task == "segmentation":
        return segmentation.perfect(adapter.truth()[0], LabelMap.of(adapter.card.classes), adapter.ids)
    images = [int(image) for image in adapter.ids]
    if adapter.task == "detection":
        (instances,) = adapter.truth()
        boxes = json.loads(Path(instances).read_text())["annotations"][:3]
        keys = ("image_id", "category_id", "bbox")
        return detection.evaluate(
            instances, [{key: one[key] for key in keys} | {"score": 0.5} for one in boxes], images
        )
    questions, annotations = adapter.truth()
    answers = [{"question_id": int(number), "answer": "yes"} for number in adapter.question_ids]
    return vqa.evaluate(questions, annotations, answers, images)


def relabelled(arrays: Arrays) -> None:
    """Every image is right, because its label is what was predicted."""
    arrays["label"], arrays["rank"] = arrays["predicted"], np.zeros_like(arrays["rank"])


def fewer_truths(arrays: Arrays) -> None:
    counts = arrays["truth_count"].copy()
    counts[arrays["truth_image"] > arrays["image"].max()] = 0
    arrays["truth_count"] = counts


def more_pixels(arrays: Arrays) -> None:
    """One more pixel of the first class, and of its category."""
    for name in ("tp", "category_tp"):
        arrays[name] = arrays[name] + (np.arange(arrays[name].shape[1]) == 0)


def other_questions(arrays: Arrays) -> None:
    arrays["question_ids"] = arrays["question_ids"] + 1


FORGED: dict[str, tuple[Callable[[Arrays], None], str]] = {
    "classification": (relabelled, "label"),
    "detection": (fewer_truths, "truth_count"),
    "segmentation": (more_pixels, r"tp \+ fn"),
    "vqa": (other_questions, "question_ids"),
}


@pytest.mark.parametrize("task", FORGED)
def test_statistics_of_another_ground_truth_are_refused_though_they_agree_with_themselves(
    tiny_suite: Path, task: str
) -> None:
    adapter = split(task)
    honest = scored(adapter)
    check_truth(adapter, honest)
    change, name = FORGED[task]
    arrays = dict(honest.statistics)
    change(arrays)
    forged = type(honest).from_statistics(arrays)
    check_card(adapter.card, forged)
    with pytest.raises(HarnessError, match=f"statistics: {name}: not those of the ground truth of shapes-{task} here"):
        check_truth(adapter, forged)


def test_a_limited_split_is_compared_as_far_as_it_goes(tiny_suite: Path) -> None:
    for task in FORGED:
        adapter = open_split(load_card(f"shapes-{task}"), "test", 3)
        check_truth(adapter, type(scored(adapter)).from_statistics(scored(adapter).statistics))


def test_hits_among_real_labels_follow_from_the_predicted_classes(
    tiny_suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter: Any = split("classification")
    monkeypatch.setattr("harness.ground_truth.real_labels", lambda *_: REAL)
    predicted = np.zeros(len(adapter), np.int64)
    honest = classification.evaluate(adapter.labels, predicted, adapter.ids, adapter.classes, REAL)
    check_truth(adapter, honest)
    forged = classification.ClassificationResult.from_statistics(
        {**honest.statistics, "real": np.ones(len(adapter), np.int8)}
    )
    with pytest.raises(HarnessError, match="statistics: real: not those"):
        check_truth(adapter, forged)


def test_counts_that_no_label_map_of_the_card_gives_are_refused_without_the_data(tiny_suite: Path) -> None:
    card = load_card("shapes-segmentation")
    result: Any = scored(split("segmentation"))
    for changed, words in (
        ({"category_fn": result.arrays["category_fn"] + 1}, "category_fn: counts of categories are not those"),
        ({"classes": np.roll(result.arrays["classes"], 1)}, "classes: are not those of the card"),
        ({"categories": np.roll(result.arrays["categories"], 1)}, "categories: are not those of the card"),
    ):
        with pytest.raises(HarnessError, match=words):
            check_card(card, segmentation.SegmentationResult.from_statistics({**result.arrays, **changed}))


def test_only_where_a_pixel_may_be_predicted_as_ignored_there_are_fewer_false_hits_than_misses() -> None:
    labels = [SegmentationClass(name=name, id=n, category="all", evaluated=n > 0) for n, name in enumerate("xab")]
    card = load_card("shapes-segmentation").model_copy(update={"classes": tuple(labels)})
    truth = [np.array([[1, 2]], np.uint8)]
    ignored = segmentation.evaluate(truth, [np.array([[0, 2]], np.uint8)], LabelMap.of(labels))
    check_card(card, ignored)
    whole = card.model_copy(update={"classes": tuple(labels[1:])})
    check_card(whole, segmentation.evaluate(truth, [np.array([[2, 2]], np.uint8)], LabelMap.of(labels[1:])))
    with pytest.raises(HarnessError, match="fp: an image has not as many false hits as misses"):
        check_card(whole, ignored)
