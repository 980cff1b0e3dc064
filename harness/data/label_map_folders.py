"""A folder of images and a folder of label maps with the same names: PASCAL VOC, ADE20K, CamVid and many others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from harness.cards import DatasetCard
from harness.data.images import read_label_png, walk_images
from harness.data.name_lists import read_names
from harness.data.samples import Adapter, Image, SegmentationSample
from harness.data.segmentation import evaluated_classes
from harness.data.stores import open_images
from harness.errors import HarnessError
from harness.evaluation.label_maps import LabelMaps


class LabelMapFolders(Adapter):
    """Images and label maps joined by their relative path without its ending, whose ids become train ids.

    The images of the split are those that the list ``names`` has, or else all of the folder. An image's id is its
    relative path without the ending, ``/`` written as ``_``, so that it can be the name of a prediction.

    Args:
        card: The data set.
        split: Name of the split.
        limit: Use only the first `limit` images, in the order of their names.

    Attributes:
        label_ids: uint8 [C], label id of each train id, in the order of the card's evaluated classes.
        train_ids: uint8 [256], train id of each label id; 255 for label ids that are not evaluated.

    Raises:
        HarnessError: A folder, list, image or label map is missing, or an image has another ending than the card says.
    """

    task = "segmentation"

    def __init__(self, card: DatasetCard, split: str, limit: int | None = None) -> None:
        self.card, self.split = card, split
        self._classes, self.label_ids, self.train_ids = evaluated_classes(card)
        self._unknown = ~np.isin(np.arange(256), [c.id for c in card.classes])
        self._images = open_images(card, split)
        self._folder = card.require(card.path(split, "labels"), "the label folder")
        entry = card.splits[split]  # type: ignore[index]
        self._image_suffix, self._label_suffix = entry.image_suffix, entry.label_suffix
        stems = self._stems()
        ending = entry.label_suffix
        maps = walk_images(self._folder, (ending.lower(),))
        present = {name.removesuffix(ending) for name in maps if name.endswith(ending)}
        if card.missing_labels == "leave_out":
            stems = [stem for stem in stems if stem in present]
            if not stems:
                raise HarnessError(f"{self._folder}: has no label map of any image of split {split}; {card.how_to_get}")
        self._all_ids = [stem.replace("/", "_") for stem in stems]
        if len(set(self._all_ids)) < len(stems):
            twice = next(i for i in self._all_ids if self._all_ids.count(i) > 1)
            raise HarnessError(f"{self._images.place}: two images have the id {twice!r}; rename one of them")
        self._chosen = stems[:limit]
        self.ids = self._all_ids[:limit]
        for stem in self._chosen:
            if stem not in present:
                raise HarnessError(
                    f"{self._images.path(stem + self._image_suffix)}: has no label map {self._label(stem)}; complete "
                    "the data set, or write 'missing_labels: leave_out' into the card"
                )

    def _stems(self) -> list[str]:
        """Names of the split's images without their ending, sorted."""
        if self.card.splits[self.split].names is not None:  # type: ignore[index]
            listing = self.card.require(self.card.path(self.split, "names"), "the list of images")
            stems = sorted(row[0] for row in read_names(listing))
            self._images.require((stem + self._image_suffix for stem in stems), str(listing))
            return stems
        names = self._images.names()
        for name in names:
            if not name.endswith(self._image_suffix):
                raise HarnessError(
                    f"{self._images.path(name)}: does not end in {self._image_suffix!r}; write the images' ending into "
                    f"splits.{self.split}.image_suffix of card {self.card.name}"
                )
        if not names:
            raise HarnessError(f"{self._images.place}: has no image; {self.card.how_to_get}")
        return sorted(name.removesuffix(self._image_suffix) for name in names)

    def _label(self, stem: str) -> Path:
        return self._folder / (stem + self._label_suffix)

    def __getitem__(self, index: int) -> SegmentationSample:
        """Decode one image and its label map.

        Raises:
            HarnessError: One of them cannot be read, they differ in size, or an id is not in the card.
        """
        index = range(len(self.ids))[index]
        name = self._chosen[index] + self._image_suffix
        image, label = self.image(index), self.label_map(index)
        if image.shape[:2] != label.shape:
            raise HarnessError(
                f"{self._images.path(name)}: has {image.shape[1]} x {image.shape[0]} pixels, but its label map "
                f"{self._label(self._chosen[index])} has {label.shape[1]} x {label.shape[0]}; they must agree"
            )
        return SegmentationSample(self.ids[index], image, self.train_ids[label])

    def image(self, index: int) -> Image:
        """Decode one image without its label map."""
        return self._images.read(self._chosen[index] + self._image_suffix)

    def label_map(self, index: int) -> NDArray[np.uint8]:
        """The label ids of the image at a place from 0 to N-1: uint8 [H, W]."""
        path = self._label(self._chosen[index])
        return self._known(read_label_png(path), str(path))

    def _known(self, label: NDArray[np.uint8], place: str) -> NDArray[np.uint8]:
        if (unknown := self._unknown[label]).any():
            raise HarnessError(
                f"{place}: holds the id {label[unknown][0]}, which is not among the classes of card {self.card.name}; "
                "label maps hold label ids, not train ids"
            )
        return label

    def ground_truth_files(self) -> Sequence[Path]:
        """The label maps, in the order of the ids."""
        return tuple(self._label(stem) for stem in self._chosen)

    def truth(self) -> tuple[Sequence[NDArray[np.uint8]]]:
        """The label maps, each read when it is asked for."""
        return (_Maps(len(self.ids), self.label_map),)

    def predicted(self, path: Path) -> Sequence[NDArray[np.uint8]]:
        """The label maps of a folder or ZIP of predictions, each read when it is asked for.

        Raises:
            HarnessError: An image has no prediction or two, or a file belongs to no image of the split.
        """
        maps = LabelMaps(path, self.ids, self._all_ids)
        return _Maps(len(self.ids), lambda n: self._known(maps.read(self.ids[n]), maps.path(self.ids[n])))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the card's evaluated classes, in its order."""
        return self._classes


class _Maps(Sequence[NDArray[np.uint8]]):
    """N label maps that are read one at a time."""

    def __init__(self, count: int, read: Callable[[int], NDArray[np.uint8]]) -> None:
        self._count, self._read = count, read

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[NDArray[np.uint8]]: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.uint8] | Sequence[NDArray[np.uint8]]:
        if isinstance(index, slice):
            return [self._read(n) for n in range(self._count)[index]]
        return self._read(range(self._count)[index])
