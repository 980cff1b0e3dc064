"""COCO's layout: a folder of images and one instances JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.cards import DatasetCard
from harness.data.columns import columns, file_key
from harness.data.instances import read_instances
from harness.data.samples import Adapter, DetectionSample, Image
from harness.data.stores import open_images
from harness.errors import HarnessError


class CocoDetection(Adapter):
    """Images with boxes. All images count, also those without a box.

    Boxes without width or height are left out of the samples, because nothing can be learnt from them. Scoring reads
    the JSON file itself, where they are.

    Args:
        card: The data set.
        split: Name of the split.
        limit: Use only the first `limit` images, in the order of their ids.

    Attributes:
        category_ids: int64 [C], COCO's sparse category id of each label, ascending.

    Raises:
        HarnessError: A file is missing or not valid.
    """

    task = "detection"

    def __init__(self, card: DatasetCard, split: str, limit: int | None = None) -> None:
        self.card, self.split = card, split
        self._images = open_images(card, split)
        self._file = path = card.require(card.path(split, "annotations"), "the instances file")
        self._columns = columns(file_key(path, salt="coco"), lambda: read_instances(path))
        self._classes = tuple(self._columns.texts("category_names"))
        self.category_ids: NDArray[np.int64] = self._columns["category_ids"]
        self.ids = self._columns.texts("ids")[:limit]
        self._images.require(self._columns.texts("file_names")[:limit], str(path))

    @property
    def image_ids(self) -> NDArray[np.int64]:
        """int64 [N], ascending."""
        return self._columns["image_ids"][: len(self.ids)]

    def __getitem__(self, index: int) -> DetectionSample:
        """Decode one image.

        Raises:
            HarnessError: The image cannot be read, or its size is not the one that the JSON states.
        """
        index = range(len(self.ids))[index]
        name = self._columns.texts("file_names")[index]
        image: Image = self._images.read(name)
        height, width = self._columns["sizes"][index]
        if image.shape[:2] != (height, width):
            turned = (
                " (if its EXIF data turn it, set the card's exif_orientation)"
                if image.shape[1::-1] == (height, width)
                else ""
            )
            raise HarnessError(
                f"{self._images.path(name)}: the image has {image.shape[1]} x {image.shape[0]} pixels, but "
                f"{self._file} says {width} x {height}; the boxes would be misplaced, fetch the image again{turned}"
            )
        part = slice(*self._columns["starts"][index : index + 2])
        boxes, labels, crowd = (self._columns[key][part].copy() for key in ("boxes", "labels", "crowd"))
        return DetectionSample(self.ids[index], image, boxes, labels, crowd)

    def ground_truth_files(self) -> Sequence[Path]:
        """The instances JSON."""
        return (self._file,)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the categories, by ascending category id."""
        return self._classes

    def strata(self) -> NDArray[np.int64]:
        """The rarest category of each image, so that a fraction keeps some of every category; C where it has no box."""
        frequency = np.bincount(self._columns["labels"], minlength=len(self._classes))
        rank = np.argsort(np.argsort(frequency, kind="stable"), kind="stable")
        ranks = np.append(rank[self._columns["labels"]], len(self._classes))
        starts = self._columns["starts"]
        count = len(self.ids)
        rarest = np.minimum.reduceat(ranks, np.minimum(starts[:count], len(ranks) - 1))
        return np.where(starts[1 : count + 1] > starts[:count], rarest, len(self._classes)).astype(np.int64)
