"""Labels that say nothing of their images: the negative control of auxiliary tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from harness.data.samples import Adapter, DetectionSample, Sample, SegmentationSample
from harness.data.transforms import derive_seed


class ShuffledLabels(Adapter):
    """A training split in which every image has the annotations of another image.

    The annotations as such stay what they were (as many of every class, the same boxes, the same questions with their
    answers), and so does every prior that can be learned from them alone; only what they have to do with the pixels
    is gone. Boxes and label maps are stretched to the image that they come to. Everything else is the other adapter's.

    Args:
        adapter: The split.
        seed: Of the permutation, which depends on the data set's name as well.
    """

    def __init__(self, adapter: Adapter, seed: int) -> None:
        self._adapter = adapter
        self.task = adapter.task  # type: ignore[misc]
        self.card, self.split, self.ids = adapter.card, adapter.split, adapter.ids
        self._seed = seed
        self._given = _derangement(len(adapter), derive_seed("shuffled labels", seed, adapter.card.name))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # not there yet, as when it is unpickled in a loader process
            raise AttributeError(name)
        return getattr(self._adapter, name)

    def __getitem__(self, index: int) -> Any:
        """An image with another's annotations. Raises HarnessError naming the file if one cannot be read."""
        own: Sample = self._adapter[index]
        return _with_image(self._adapter[self._from(index)], own)

    def unseen(self, index: int) -> Any:
        """VQA: as an image of the split without its pixels, but with another's questions and answers."""
        return replace(self._adapter.unseen(self._from(index)), id=self.ids[index])  # type: ignore[attr-defined]

    def strata(self) -> NDArray[np.int64]:
        """Of the images themselves, so that a label fraction takes the same images."""
        return self._adapter.strata()

    @property
    def examples(self) -> int:
        """As many as there are."""
        return self._adapter.examples

    def ground_truth_files(self) -> Sequence[Path]:
        """The files that hold the annotations."""
        return self._adapter.ground_truth_files()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the C classes."""
        return self._adapter.classes

    def annotation_hash(self) -> str:
        """Another one than that of the annotations in their places."""
        return hashlib.sha256(f"{self._adapter.annotation_hash()} shuffled {self._seed}".encode()).hexdigest()

    def _from(self, index: int) -> int:
        return int(self._given[range(len(self))[index]])


def _derangement(length: int, seed: int) -> NDArray[np.int64]:
    """int64 [N]: a random cycle through all places, so that none stays where it is (but for a single one)."""
    order = np.random.default_rng(seed).permutation(length)
    given = np.empty(length, dtype=np.int64)
    given[order] = np.roll(order, -1)
    return given


def _with_image(labels: Sample, own: Sample) -> Sample:
    """The annotations of one sample with image and id of another."""
    moved: dict[str, Any] = {"id": own.id, "image": own.image}
    (height, width), (there_height, there_width) = own.image.shape[:2], labels.image.shape[:2]
    if isinstance(labels, DetectionSample):
        factors = np.array([width / there_width, height / there_height] * 2, dtype=np.float32)
        moved["boxes"] = labels.boxes * factors
    if isinstance(labels, SegmentationSample):
        nearest = Pillow.fromarray(labels.mask).resize((width, height), Pillow.Resampling.NEAREST)
        moved["mask"] = np.asarray(nearest)
    return replace(labels, **moved)
