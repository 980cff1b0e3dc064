"""PASCAL VOC's layout: a folder of images, a folder of XML files and a list of the split's images."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from defusedxml import ElementTree

from harness.cards import DatasetCard
from harness.data.name_lists import read_names
from harness.data.samples import Adapter, DetectionSample
from harness.data.stores import open_images
from harness.errors import HarnessError, suggestion

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_MAX_XML_BYTES = 4 << 20  # the official files have some ten thousand
_NAME = re.compile(r"[0-9]+(?:_[0-9]+)*")


class PascalVoc(Adapter):
    """Images with boxes in PASCAL VOC's XML. All images count, also those without an object.

    Boxes are 1-based and inclusive in the files: x is xmin - 1, the width xmax - xmin + 1. Objects that are marked
    difficult become crowd regions: never trained on, and detections of them count neither for nor against. The COCO
    metric matches crowd regions by intersection over the *detection's* area.

    An image id is its name's digits, because COCO's files need numbers: ``2007_000027`` is 2007000027, ``000005`` is 5.

    Args:
        card: The data set. Its classes are categories 1, 2, and so on.
        split: Name of the split.
        limit: Use only the first `limit` images, in the order of their ids.

    Attributes:
        category_ids: int64 [C], 1 to C.
        image_ids: int64 [N], ascending.

    Raises:
        HarnessError: A file is missing or not valid, or an object's class is not in the card.
    """

    task = "detection"

    def __init__(self, card: DatasetCard, split: str, limit: int | None = None) -> None:
        self.card, self.split = card, split
        self._images = open_images(card, split)
        self._classes = tuple(c.name for c in card.classes)
        self.category_ids = np.arange(1, len(self._classes) + 1, dtype=np.int64)
        if [c.id for c in card.classes] != self.category_ids.tolist():
            raise HarnessError(f"card {card.name}: classes: ids must be 1 to {len(self._classes)} in this order")
        folder = card.require(card.path(split, "annotations"), "the folder of annotations")
        listing = card.require(card.path(split, "names"), "the list of images")
        name_of = _numbered([row[0] for row in read_names(listing)], listing)
        order = sorted(name_of)
        suffix = card.splits[split].image_suffix  # type: ignore[index]
        self._xml = [folder / f"{name_of[number]}.xml" for number in order]
        self._names = [f"{name_of[number]}{suffix}" for number in order]
        self._images.require(self._names[:limit], str(listing))
        label_of = {name: label for label, name in enumerate(self._classes)}
        self._all = [_read(path, label_of) for path in self._xml]
        self.image_ids = np.array(order, dtype=np.int64)[:limit]
        self.ids = [str(number) for number in order[:limit]]

    def __getitem__(self, index: int) -> DetectionSample:
        """Decode one image.

        Raises:
            HarnessError: The image cannot be read, or its size is not the one that the XML states.
        """
        index = range(len(self.ids))[index]
        image = self._images.read(self._names[index])
        width, height, objects = self._all[index]
        if image.shape[:2] != (height, width):
            raise HarnessError(
                f"{self._images.path(self._names[index])}: the image has {image.shape[1]} x {image.shape[0]} pixels, "
                f"but {self._xml[index]} says {width} x {height}; the boxes would be misplaced, fetch the image again"
            )
        boxes = np.array([o[1:5] for o in objects], dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = np.array([o[0] for o in objects], dtype=np.int64)
        crowd = np.array([o[5] for o in objects], dtype=np.bool_)
        return DetectionSample(self.ids[index], image, boxes.astype(np.float32), labels, crowd)

    def ground_truth_files(self) -> Sequence[Path]:
        """The XML files of the whole split, by image id."""
        return self._xml

    def truth(self) -> tuple[dict[str, Any]]:
        """The ground truth of the limited split as COCO's instances document."""
        images = [
            {"id": int(number), "file_name": name, "width": width, "height": height}
            for number, name, (width, height, _) in zip(self.image_ids, self._names, self._all, strict=False)
        ]
        annotations = [
            {"image_id": int(number), "category_id": label + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
            for number, (_, _, objects) in zip(self.image_ids, self._all, strict=False)
            for label, *box, crowd in objects
        ]
        categories = [{"id": number, "name": name} for number, name in enumerate(self._classes, 1)]
        numbered = [{"id": number} | annotation for number, annotation in enumerate(annotations, 1)]
        return ({"images": images, "annotations": numbered, "categories": categories},)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the card's classes, in its order."""
        return self._classes


def _numbered(names: list[str], listing: Path) -> dict[int, str]:
    """Image name by image id."""
    found: dict[int, str] = {}
    for name in names:
        if not _NAME.fullmatch(name) or len(name) > 18:
            raise HarnessError(
                f"{listing}: image {name!r} is not named by digits such as 2007_000027, so it has no number that COCO "
                "results could name; rename it"
            )
        number = int(name.replace("_", ""))
        if number in found:
            raise HarnessError(f"{listing}: images {found[number]!r} and {name!r} both have id {number}; rename one")
        found[number] = name
    return found


Object = tuple[int, float, float, float, float, int]  # label; x, y, width, height in pixels from 0; 1 if difficult


def _read(path: Path, label_of: dict[str, int]) -> tuple[int, int, list[Object]]:
    """Width, height and objects of one XML file."""
    root = _parse(path)
    size = root.find("size")
    width, height = (_number(size, key, path, "size") for key in ("width", "height"))
    if not (1 <= width < 2**31 and 1 <= height < 2**31 and width == int(width) and height == int(height)):
        raise HarnessError(f"{path}: size: {width:g} x {height:g} is not an image's size in pixels")
    return int(width), int(height), [_object(o, n, path, label_of) for n, o in enumerate(root.findall("object"))]


def _parse(path: Path) -> Element:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_XML_BYTES + 1)
        if len(raw) > _MAX_XML_BYTES:
            raise HarnessError(f"{path}: is larger than {_MAX_XML_BYTES >> 20} MiB; is this an annotation file?")
        root: Element = ElementTree.fromstring(raw, forbid_dtd=True)
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({error.strerror}); complete the data set") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # what is forbidden is a ValueError
        raise HarnessError(
            f"{path}: is not plain XML ({type(error).__name__}: {str(error)[:80]}); fetch it again"
        ) from None
    return root


def _object(entry: Element, number: int, path: Path, label_of: dict[str, int]) -> Object:
    place = f"object {number + 1}"
    name = (entry.findtext("name") or "").strip()
    if name not in label_of:
        raise HarnessError(
            f"{path}: {place}: name: {name[:60]!r} is not a class of the card{suggestion(name[:60], label_of)}"
        )
    difficult = (entry.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1"):
        raise HarnessError(f"{path}: {place}: difficult: {difficult[:60]!r} is not 0 or 1")
    box = entry.find("bndbox")
    left, top, right, bottom = (_number(box, key, path, f"{place}: bndbox") for key in ("xmin", "ymin", "xmax", "ymax"))
    if right < left or bottom < top:
        raise HarnessError(f"{path}: {place}: bndbox: {left:g}, {top:g} to {right:g}, {bottom:g} has a negative side")
    return label_of[name], left - 1, top - 1, right - left + 1, bottom - top + 1, int(difficult)


def _number(entry: Element | None, key: str, path: Path, place: str) -> float:
    text = None if entry is None else entry.findtext(key)
    if text is None:
        raise HarnessError(f"{path}: {place}: {key}: this element is required and missing")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or abs(value) > 2**31:  # a few official boxes have fractions of a pixel
        raise HarnessError(f"{path}: {place}: {key}: {text.strip()[:60]!r} is not a number of pixels")
    return value
