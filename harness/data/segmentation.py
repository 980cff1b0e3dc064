"""Cityscapes' layout: a tree of images and a tree of label maps, joined by the frame's name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.cards import DatasetCard
from harness.data.images import read_label_png, walk_images
from harness.data.samples import Adapter, Image, SegmentationSample
from harness.data.stores import open_images
from harness.errors import HarnessError

IGNORE = 255
_IMAGE_ENDINGS = ("_leftImg8bit.png", "_leftImg8bit.jpg")
_LABEL_ENDING = "_gtFine_labelIds.png"


class Cityscapes(Adapter):
    """Images with label maps, whose label ids become train ids in the order of the card's evaluated classes.

    Args:
        card: The data set.
        split: Name of the split.
        limit: Use only the first `limit` images, in the order of their names.

    Attributes:
        label_ids: uint8 [C], label id of each train id.
        train_ids: uint8 [256], train id of each label id; `IGNORE` for label ids that are not evaluated.

    Raises:
        HarnessError: A folder or label map is missing, or two images have the same name.
    """

    task = "segmentation"

    def __init__(self, card: DatasetCard, split: str, limit: int | None = None) -> None:
        self.card, self.split = card, split
        self._images = open_images(card, split)
        labels = card.require(card.path(split, "labels"), "the label folder")
        self._classes, self.label_ids, self.train_ids = evaluated_classes(card)
        self._image_of = _by_frame(self._images.names(), _IMAGE_ENDINGS, str(self._images.place))
        self._label_of = _by_frame(walk_images(labels), (_LABEL_ENDING,), str(labels))
        if not self._image_of:
            raise HarnessError(
                f"card {card.name}: {self._images.place} has no file that ends in {' or '.join(_IMAGE_ENDINGS)}; "
                f"{card.how_to_get}"
            )
        frames = sorted(self._image_of)
        if card.missing_labels == "leave_out":
            frames = [frame for frame in frames if frame in self._label_of]
        self.ids = frames[:limit]
        for frame in self.ids:
            if frame not in self._label_of:
                raise HarnessError(
                    f"{self._images.path(self._image_of[frame])}: has no label map {frame}{_LABEL_ENDING} below "
                    f"{labels}; complete the data set, or set the card's missing_labels to leave_out"
                )
        self._labels = labels

    def __getitem__(self, index: int) -> SegmentationSample:
        """Decode one image and its label map.

        Raises:
            HarnessError: One of them cannot be read, or they differ in size.
        """
        frame = self.ids[index]
        image = self.image(index)
        label_file = self._labels / self._label_of[frame]
        label = read_label_png(label_file)
        if image.shape[:2] != label.shape:
            raise HarnessError(
                f"{self._images.path(self._image_of[frame])}: has {image.shape[1]} x {image.shape[0]} pixels, but its "
                f"label map {label_file} has {label.shape[1]} x {label.shape[0]}; they must agree"
            )
        return SegmentationSample(frame, image, self.train_ids[label])

    def image(self, index: int) -> Image:
        """Decode one image without its label map."""
        return self._images.read(self._image_of[self.ids[index]])

    def ground_truth_files(self) -> Sequence[Path]:
        """The label maps, in the order of the ids."""
        return tuple(self._labels / self._label_of[frame] for frame in self.ids)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the card's evaluated classes, in its order."""
        return self._classes


def evaluated_classes(card: DatasetCard) -> tuple[tuple[str, ...], NDArray[np.uint8], NDArray[np.uint8]]:
    """The C classes of a segmentation card that are scored, in its order.

    Returns:
        Their names; uint8 [C], the label id of each train id; and uint8 [256], the train id of each label id, `IGNORE`
        for label ids that are not evaluated.

    Raises:
        HarnessError: There are more than train ids.
    """
    evaluated = [c for c in card.classes if c.evaluated]
    if len(evaluated) > IGNORE:
        raise HarnessError(f"card {card.name}: classes: {len(evaluated)} are evaluated, at most {IGNORE} can be")
    label_ids: NDArray[np.uint8] = np.array([c.id for c in evaluated], dtype=np.uint8)
    train_ids = np.full(256, IGNORE, dtype=np.uint8)
    train_ids[label_ids] = np.arange(len(evaluated), dtype=np.uint8)
    return tuple(c.name for c in evaluated), label_ids, train_ids


def _by_frame(names: Sequence[str], endings: tuple[str, ...], folder: str) -> dict[str, str]:
    """Files by ``city_seq_frame``; the trees of images and labels need not have the same folders."""
    found: dict[str, str] = {}
    for name in names:
        ending = next((e for e in endings if name.endswith(e)), None)
        if ending is None:
            continue
        frame = name.rpartition("/")[2].removesuffix(ending)
        if frame in found:
            raise HarnessError(f"{folder}/{name}: has the same name as {found[frame]}; names must be unique")
        found[frame] = name
    return found
