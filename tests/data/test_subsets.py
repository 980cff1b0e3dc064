"""Label fractions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.cards import load_card
from harness.data import open_split
from harness.data.config import TaskConfig
from harness.data.loading import TaskData, TrainingOrder
from harness.data.samples import Adapter
from harness.data.subsets import subset


class Labelled(Adapter):
    """A data set that is nothing but ids and classes."""

    task = "classification"

    def __init__(self, labels: Sequence[int], names: Sequence[str] | None = None) -> None:
        self.labels = np.array(labels)
        self.ids = names or [f"image-{n}" for n in range(len(labels))]

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError

    def ground_truth_files(self) -> Sequence[Path]:
        return ()

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(map(str, range(self.labels.max() + 1)))

    def strata(self) -> NDArray[np.int64]:
        return self.labels


LABELS = [0] * 1000 + [1] * 100 + [2] * 3


@pytest.mark.parametrize("fraction", [0.01, 0.07, 0.1, 0.5, 1.0])
def test_every_class_gives_its_share_rounded_up(fraction: float) -> None:
    chosen = subset(Labelled(LABELS), fraction)
    counts = np.bincount(np.array(LABELS)[chosen], minlength=3)
    assert counts.tolist() == [round(1000 * fraction), round(100 * fraction), int(np.ceil(3 * fraction))]
    assert (np.diff(chosen) > 0).all()


def test_a_smaller_fraction_lies_within_a_larger_one() -> None:
    sets = [set(subset(Labelled(LABELS), fraction).tolist()) for fraction in (0.01, 0.05, 0.1, 0.33, 1.0)]
    assert all(small < large for small, large in itertools.pairwise(sets))
    assert sets[-1] == set(range(len(LABELS)))


def test_another_draw_is_another_subset_and_the_same_draw_the_same() -> None:
    one, two = (set(subset(Labelled(LABELS), 0.1, draw).tolist()) for draw in (0, 1))
    assert len(one & two) < 40
    assert one == set(subset(Labelled(LABELS), 0.1).tolist())


def test_the_choice_does_not_depend_on_the_order_of_the_images() -> None:
    names = [f"image-{n}" for n in range(len(LABELS))]
    backwards = Labelled(LABELS[::-1], names[::-1])
    forwards = Labelled(LABELS, names)
    chosen = {names[n] for n in subset(forwards, 0.1)}
    assert chosen == {names[::-1][n] for n in subset(backwards, 0.1)}


@pytest.mark.usefixtures("tiny_suite")
def test_training_takes_the_fraction_and_scoring_takes_everything() -> None:
    adapter = open_split(load_card("shapes-detection"), "train")
    config = TaskConfig(dataset="shapes-detection", batch_size=4, image_size=(64, 64), fraction=0.25)
    training, scoring = TaskData(adapter, config, True, 0), TaskData(adapter, config, False, 0)
    assert len(scoring) == len(adapter)
    chosen = subset(adapter, 0.25)
    assert len(training) == len(chosen) < len(adapter)
    epoch = [
        index for batch, _ in zip(TrainingOrder(training, 1), range(len(training)), strict=False) for _, index in batch
    ]
    assert sorted(epoch) == list(range(len(training)))
    assert {training[(0, index)]["id"] for index in epoch} == {adapter.ids[row] for row in chosen}
    categories = {label for row in chosen for label in adapter[int(row)].labels.tolist()}
    everything = {label for sample in map(adapter.__getitem__, range(len(adapter))) for label in sample.labels.tolist()}
    assert categories == everything  # the rarest category of an image decides, so none is lost
