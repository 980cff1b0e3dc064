"""What the layouts of classification share that list their labels in files instead of folders."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.cards import DatasetCard
from harness.data.samples import Adapter, ClassificationSample, Image


class Labelled(Adapter):
    """Images with one class each, whose names and labels are known.

    Args:
        card: The data set.
        split: Name of the split.
        limit: Use only the first `limit` images.
        ids: The N ids of the whole split, in canonical order.
        labels: int64 [N], class index of each image of the whole split.
        classes: Names of the C classes.
        truth: The files that hold the labels.

    Attributes:
        labels: int64 [N], class index of each image; limited when `limit` is given.
    """

    task = "classification"

    def __init__(
        self,
        card: DatasetCard,
        split: str,
        limit: int | None,
        ids: Sequence[str],
        labels: NDArray[np.int64],
        classes: Sequence[str],
        truth: Sequence[Path],
    ) -> None:
        self.card, self.split = card, split
        self._all_ids, self._all_labels = ids, labels
        self._classes, self._truth = tuple(classes), tuple(truth)
        self.ids, self.labels = ids[:limit], labels[:limit]

    def __getitem__(self, index: int) -> ClassificationSample:
        """Decode one image. Raises HarnessError naming the file if it cannot be read."""
        index = range(len(self.ids))[index]
        return ClassificationSample(self.ids[index], self.image(index), int(self.labels[index]))

    @abstractmethod
    def image(self, index: int) -> Image:
        """Decode the image at a place from 0 to N-1."""

    def ground_truth_files(self) -> Sequence[Path]:
        """The files that hold the labels."""
        return self._truth

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in index order."""
        return self._classes

    def strata(self) -> NDArray[np.int64]:
        """The classes."""
        return self.labels

    def annotation_hash(self) -> str:
        """SHA-256 over the sorted lines ``id<tab>class`` of the whole split, whatever the limit."""
        pairs = zip(self._all_ids, self._all_labels.tolist(), strict=True)
        lines = sorted(f"{name}\t{self._classes[label]}" for name, label in pairs)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
