"""COCO's layout: a folder of images and one instances JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.cards import DatasetCard
from harness.data.annotations import entries, field, read_json, unique_ids
from harness.data.samples import Adapter, DetectionSample
from harness.data.stores import ImageStore
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
        image_ids: int64 [N], ascending.

    Raises:
        HarnessError: A file is missing or not valid.
    """

    task = "detection"

    def __init__(self, card: DatasetCard, split: str, limit: int | None = None) -> None:
        self.card, self.split = card, split
        self._images = ImageStore(card, split)
        self._file = path = card.require(card.path(split, "annotations"), "the instances file")
        document = read_json(path)
        self._read_categories(document)
        images = entries(document, "images", path)
        if not images:
            raise HarnessError(f"{path}: images: the list is empty; is this the right file?")
        found = unique_ids(images, "id", path, "images")
        order = np.argsort(found)
        self._names: list[str] = [
            field(images[number], "file_name", str, path, f"images[{number}]") for number in order
        ]
        sizes = [
            [field(images[number], key, int, path, f"images[{number}]") for key in ("height", "width")]
            for number in order
        ]
        if len(bad := np.flatnonzero([not 0 < min(size) <= max(size) < 2**31 for size in sizes])):
            raise HarnessError(f"{path}: image {found[order[bad[0]]]}: height and width {sizes[bad[0]]} are not a size")
        self._sizes = np.array(sizes, dtype=np.int32)
        self.image_ids = found[order]
        self._read_boxes(entries(document, "annotations", path))
        self._images.require(self._names[:limit], str(path))
        self.image_ids = self.image_ids[:limit]
        self.ids = [str(number) for number in self.image_ids]

    def _read_categories(self, document: dict[str, Any]) -> None:
        path = self._file
        categories = entries(document, "categories", path)
        if not categories:
            raise HarnessError(f"{path}: categories: the list is empty; is this the right file?")
        found = unique_ids(categories, "id", path, "categories")
        order = np.argsort(found)
        self.category_ids = found[order]
        self._classes = tuple(
            str(field(categories[number], "name", str, path, f"categories[{number}]")) for number in order
        )

    def _read_boxes(self, annotations: list[dict[str, Any]]) -> None:
        """Flat arrays over all boxes, sorted by image, and where each image's begin."""
        path = self._file
        unique_ids(annotations, "id", path, "annotations")
        row_of_image = {int(number): row for row, number in enumerate(self.image_ids)}
        label_of_category = {int(number): label for label, number in enumerate(self.category_ids)}
        count = len(annotations)
        boxes, rows = np.zeros((count, 4)), np.zeros(count, dtype=np.int64)
        labels, crowd = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.bool_)
        for number, annotation in enumerate(annotations):
            place = f"annotations[{number}]"
            image, category = (field(annotation, key, int, path, place) for key in ("image_id", "category_id"))
            if image not in row_of_image:
                raise HarnessError(f"{path}: {place}.image_id: {image} is not the id of an image of this file")
            if category not in label_of_category:
                raise HarnessError(f"{path}: {place}.category_id: {category} is not the id of a category of this file")
            box = field(annotation, "bbox", list, path, place)
            if len(box) != 4 or not all(type(v) in (int, float) and math.isfinite(v) for v in box):
                raise HarnessError(f"{path}: {place}.bbox: {str(box)[:60]} is not [x, y, width, height] in pixels")
            boxes[number], rows[number], labels[number] = box, row_of_image[image], label_of_category[category]
            is_crowd = annotation.get("iscrowd", 0)
            if is_crowd not in (0, 1):
                raise HarnessError(f"{path}: {place}.iscrowd: {str(is_crowd)[:60]!r} is not 0 or 1")
            crowd[number] = bool(is_crowd)
        kept = np.flatnonzero((boxes[:, 2] > 0) & (boxes[:, 3] > 0))
        kept = kept[np.argsort(rows[kept], kind="stable")]
        boxes[:, 2:] += boxes[:, :2]  # in float64, rounded once
        self._boxes, self._labels, self._crowd = boxes[kept].astype(np.float32), labels[kept], crowd[kept]
        self._starts = np.searchsorted(rows[kept], np.arange(len(self.image_ids) + 1))

    def __getitem__(self, index: int) -> DetectionSample:
        """Decode one image.

        Raises:
            HarnessError: The image cannot be read, or its size is not the one that the JSON states.
        """
        index = range(len(self.ids))[index]
        name = self._names[index]
        image = self._images.read(name)
        height, width = self._sizes[index]
        if image.shape[:2] != (height, width):
            raise HarnessError(
                f"{self._images.path(name)}: the image has {image.shape[1]} x {image.shape[0]} pixels, but "
                f"{self._file} says {width} x {height}; the boxes would be misplaced, fetch the image again"
            )
        part = slice(self._starts[index], self._starts[index + 1])
        return DetectionSample(
            self.ids[index], image, self._boxes[part].copy(), self._labels[part].copy(), self._crowd[part].copy()
        )

    def ground_truth_files(self) -> Sequence[Path]:
        """The instances JSON."""
        return (self._file,)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the categories, by ascending category id."""
        return self._classes
