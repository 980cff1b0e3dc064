"""Shuffled labels: another image's annotations, one each, and nothing else changed."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests_support import document

from harness.cards import load_card
from harness.data import open_split
from harness.data.config import TaskConfig
from harness.data.samples import Adapter, ClassificationSample, DetectionSample, SegmentationSample
from harness.data.shuffling import ShuffledLabels
from harness.submission import Submission

SIZES = [(20, 10), (40, 30), (10, 10), (25, 50)]  # height, width


class Made(Adapter):
    """Four images of different sizes whose pixels and annotations tell their number."""

    def __init__(self, task: str) -> None:
        self.task = task  # type: ignore[misc, assignment]
        self.card, self.split = load_card("shapes-detection"), "train"
        self.ids = [f"image-{n}" for n in range(len(SIZES))]

    def __getitem__(self, index: int) -> Any:
        height, width = SIZES[index]
        image = np.full((height, width, 3), index, dtype=np.uint8)
        if self.task == "classification":
            return ClassificationSample(self.ids[index], image, index)
        if self.task == "segmentation":
            mask = np.full((height, width), index, dtype=np.uint8)
            mask[: height // 2] = 255
            return SegmentationSample(self.ids[index], image, mask)
        boxes = np.array([[0, 0, width / 2, height]], dtype=np.float32)  # the left half
        return DetectionSample(self.ids[index], image, boxes, np.array([index]), np.array([False]))

    def ground_truth_files(self) -> Sequence[Path]:
        return ()

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple("abcd")


def test_every_image_gets_the_label_of_another_and_every_label_is_given_once() -> None:
    for seed in range(20):
        shuffled = ShuffledLabels(Made("classification"), seed)
        samples = [shuffled[index] for index in range(4)]
        assert [sample.id for sample in samples] == list(shuffled.ids)
        assert [int(sample.image[0, 0, 0]) for sample in samples] == [0, 1, 2, 3]
        assert sorted(sample.label for sample in samples) == [0, 1, 2, 3]
        assert all(sample.label != index for index, sample in enumerate(samples))


def test_the_permutation_is_the_seeds_and_survives_the_way_to_a_loader_process() -> None:
    def labels(adapter: Adapter) -> list[int]:
        return [adapter[index].label for index in range(len(adapter))]

    drawn = {tuple(labels(ShuffledLabels(Made("classification"), seed))) for seed in range(20)}
    assert len(drawn) > 2
    one = ShuffledLabels(Made("classification"), 5)
    assert labels(pickle.loads(pickle.dumps(one))) == labels(one) == labels(ShuffledLabels(Made("classification"), 5))


def test_boxes_and_label_maps_are_stretched_to_the_image_that_they_come_to() -> None:
    found = ShuffledLabels(Made("detection"), 0)
    for index, (height, width) in enumerate(SIZES):
        assert found[index].boxes[0] == pytest.approx([0, 0, width / 2, height])  # still the left half
        assert found[index].labels.tolist() != [index]
    maps = ShuffledLabels(Made("segmentation"), 0)
    for index, (height, width) in enumerate(SIZES):
        mask = maps[index].mask
        assert mask.shape == (height, width)
        assert set(np.unique(mask)) == {255, mask[-1, 0]}
        assert (mask == 255).mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.usefixtures("tiny_suite")
def test_features_that_are_kept_on_disk_cannot_be_taken_for_those_with_true_labels() -> None:
    card = load_card("shapes-classification")
    plain = open_split(card, "train", 20)
    hashes = {plain.annotation_hash(), *(ShuffledLabels(plain, seed).annotation_hash() for seed in range(3))}
    assert len(hashes) == 4


@pytest.mark.usefixtures("tiny_suite")
def test_questions_keep_their_answers() -> None:
    plain = open_split(load_card("shapes-vqa"), "train", 6)
    shuffled = ShuffledLabels(plain, 1)
    known = {
        int(q): answers for n in range(6) for q, answers in zip(plain[n].question_ids, plain[n].answers, strict=True)
    }
    for index in range(6):
        sample = shuffled[index]
        assert sample.id == plain.ids[index]
        assert np.array_equal(sample.image, plain[index].image)
        assert not set(sample.question_ids.tolist()) & set(plain[index].question_ids.tolist())
        assert all(known[int(q)] == a for q, a in zip(sample.question_ids, sample.answers, strict=True))
        assert shuffled.unseen(index).questions == sample.questions


def test_the_switch_changes_the_fingerprint_and_its_absence_does_not() -> None:
    def fingerprint(**changes: Any) -> str:
        content = document()
        content["tasks"][0] |= changes
        return Submission.model_validate(content).fingerprint()

    assert fingerprint(shuffle_labels=False) == fingerprint()
    assert fingerprint(shuffle_labels=True) != fingerprint()


def test_a_cache_of_labelled_images_is_refused() -> None:
    with pytest.raises(ValueError, match="shuffle_labels: the cache"):
        TaskConfig(dataset="x", batch_size=1, image_size=(64, 64), cache=(64, 64), shuffle_labels=True)
