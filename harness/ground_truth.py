"""Statistics that somebody hands in against the ground truth that is here: the part that no prediction changes."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.cards import DatasetCard
from harness.data.real_labels import real_labels
from harness.data.samples import Adapter
from harness.errors import HarnessError
from harness.evaluation import classification, detection, segmentation, vqa
from harness.evaluation.arrays import require
from harness.evaluation.classification import ClassificationResult
from harness.evaluation.label_map import LabelMap
from harness.evaluation.metric import Result
from harness.evaluation.segmentation import SegmentationResult


def check_card(card: DatasetCard, result: Result) -> None:
    """See to it that statistics are possible under a card, for which no data is needed.

    Raises:
        HarnessError: They are not.
    """
    if isinstance(result, SegmentationResult):
        _check_label_map(LabelMap.of(card.classes), result)


def _check_label_map(label_map: LabelMap, result: SegmentationResult) -> None:
    a, evaluated, categories = result.arrays, label_map.evaluated, label_map.categories
    require(a["classes"].tolist() == [c.name for c in evaluated], "classes", "are not those of the card")
    require(a["categories"].tolist() == list(categories), "categories", "are not those of the card")
    belongs = np.array([[c.category == one for one in categories] for c in evaluated], np.int64)
    belongs = belongs.reshape(len(evaluated), len(categories))
    for name in ("fp", "fn"):
        counts = a["category_tp"] + a[f"category_{name}"]
        same = np.array_equal(counts, (a["tp"] + a[name]) @ belongs)
        require(same, f"category_{name}", "counts of categories are not those of their classes")
    if len(evaluated) == len(label_map.classes):  # every pixel is predicted as a class that counts
        balanced = np.array_equal(a["fp"].sum(axis=1), a["fn"].sum(axis=1))
        require(balanced, "fp", "an image has not as many false hits as misses")


def check_truth(adapter: Adapter, result: Result) -> None:
    """See to it that statistics are those of a split, as far as these do not depend on predictions.

    Args:
        adapter: The split.
        result: Of its images.

    Raises:
        HarnessError: They are of another ground truth; the message names the array.
    """
    reference = _reference(adapter, result)
    expected = reference.ground_truth()
    pairs: dict[str, Any] = {name: (said, expected[name]) for name, said in result.ground_truth().items()}
    if isinstance(result, ClassificationResult) and isinstance(reference, ClassificationResult):
        pairs["real"] = result.real, reference.real  # of the same predicted classes
    for name, (said, here) in pairs.items():
        if not np.array_equal(said, here):
            raise HarnessError(f"statistics: {name}: not those of the ground truth of {adapter.card.name} here")


def _reference(adapter: Adapter, result: Result) -> Result:
    """What scoring gives here: of classification for the same predictions, else for such as need no network."""
    if isinstance(result, ClassificationResult):
        by_id = dict(zip(result.ids.tolist(), result.predicted.tolist(), strict=True))
        predicted = np.array([by_id[name] for name in adapter.ids], np.int64)
        labels = np.asarray(adapter.labels)  # type: ignore[attr-defined]
        real = real_labels(adapter.card, adapter.split, adapter.ids, len(adapter.classes))
        return classification.evaluate(labels, predicted, adapter.ids, adapter.classes, real)
    if isinstance(result, SegmentationResult):
        (truth,) = adapter.truth()
        return segmentation.perfect(truth, LabelMap.of(adapter.card.classes), adapter.ids)
    return without_answers(adapter)


def without_answers(adapter: Adapter) -> Result:
    """The score of predictions that say nothing: no boxes, or empty answers to questions.

    Raises:
        HarnessError: The ground truth of the split is not valid.
    """
    images = [int(image) for image in adapter.ids]
    if adapter.task == "detection":
        (instances,) = adapter.truth()
        return detection.evaluate(instances, [], images)
    questions, annotations = adapter.truth()
    asked = [int(number) for number in adapter.question_ids]  # type: ignore[attr-defined]
    return vqa.evaluate(questions, annotations, [{"question_id": number, "answer": ""} for number in asked], images)
