"""Reading COCO instances JSON into arrays, fast and in little memory.

msgspec decodes only the keys that are needed and never builds the polygons, which are nine tenths of the file. It is
strict about types, but its errors do not say what this project's errors say. So whatever it or a check refuses is read
again the slow way, entry by entry, for a sentence with the place and the value.
"""

from __future__ import annotations

import math
import mmap
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.data.annotations import entries, field, read_json, unique_ids
from harness.data.columns import Texts
from harness.errors import HarnessError


class _Image(msgspec.Struct, gc=False):
    id: int
    file_name: str
    height: int
    width: int


class _Category(msgspec.Struct, gc=False):
    id: int
    name: str


class _Annotation(msgspec.Struct, gc=False):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    iscrowd: int = 0


class _Instances(msgspec.Struct, gc=False):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation]


def read_instances(path: Path) -> dict[str, NDArray[Any] | Texts]:
    """Read an instances JSON.

    Args:
        path: The file.

    Returns:
        Images by ascending id: ``image_ids`` int64 [N], ``ids`` (the same as texts), ``file_names``, ``sizes`` int32
        [N, 2] (height, width). Categories by ascending id: ``category_ids`` int64 [C], ``category_names``.
        Annotations with an area, by image: ``boxes`` float32 [M, 4] xyxy in pixels, ``labels`` int64 [M] (index into
        the categories), ``crowd`` bool [M]; image i has rows ``starts[i]`` to ``starts[i + 1]``, int64 [N + 1].

    Raises:
        HarnessError: The file is not valid.
    """
    arrays = _fast(path)
    return arrays if arrays is not None else _careful(path)


def _fast(path: Path) -> dict[str, NDArray[Any] | Texts] | None:
    """The arrays, or None where something is wrong with the file."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            document = msgspec.json.decode(content, type=_Instances)
    except (OSError, ValueError):  # msgspec's errors are ValueErrors, and so is an empty file to mmap
        return None
    images, categories, annotations = document.images, document.categories, document.annotations
    if not images or not categories:
        return None
    count = len(annotations)
    try:
        ids = np.fromiter((a.id for a in annotations), np.int64, count)
        of_image = np.fromiter((a.image_id for a in annotations), np.int64, count)
        of_category = np.fromiter((a.category_id for a in annotations), np.int64, count)
        crowd = np.fromiter((a.iscrowd for a in annotations), np.int64, count)
        boxes = np.fromiter((v for a in annotations for v in a.bbox), np.float64, 4 * count).reshape(count, 4)
        image_ids = np.array([image.id for image in images], dtype=np.int64)
        category_ids = np.array([category.id for category in categories], dtype=np.int64)
        sizes = np.array([(image.height, image.width) for image in images], dtype=np.int64)
    except OverflowError:
        return None
    del document, annotations
    order, category_order = np.argsort(image_ids), np.argsort(category_ids)
    image_ids, category_ids = image_ids[order], category_ids[category_order]
    rows, row_known = _find(image_ids, of_image)
    labels, label_known = _find(category_ids, of_category)
    valid = (
        _unique(image_ids) and _unique(category_ids) and _unique(np.sort(ids))
        and row_known and label_known
        and bool(np.isin(crowd, (0, 1)).all()) and bool(np.isfinite(boxes).all())
        and bool(((sizes > 0) & (sizes < 2**31)).all())
    )  # fmt: skip
    if not valid:
        return None
    names = [images[n].file_name for n in order]
    category_names = [categories[n].name for n in category_order]
    return _arrays(image_ids, names, sizes[order], category_ids, category_names, rows, labels, boxes, crowd != 0)


def _find(known: NDArray[np.int64], wanted: NDArray[np.int64]) -> tuple[NDArray[np.int64], bool]:
    """Places of ids in a sorted array, and whether all are there."""
    places = np.searchsorted(known, wanted).clip(max=len(known) - 1)
    return places, bool((known[places] == wanted).all())


def _unique(ids: NDArray[np.int64]) -> bool:
    return bool((ids >= 0).all() and (ids[1:] != ids[:-1]).all())


def _arrays(
    image_ids: NDArray[np.int64],
    file_names: list[str],
    sizes: NDArray[np.int64],
    category_ids: NDArray[np.int64],
    category_names: list[str],
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    boxes: NDArray[np.float64],
    crowd: NDArray[np.bool_],
) -> dict[str, NDArray[Any] | Texts]:
    kept = np.flatnonzero((boxes[:, 2] > 0) & (boxes[:, 3] > 0))
    kept = kept[np.argsort(rows[kept], kind="stable")]
    boxes[:, 2:] += boxes[:, :2]  # in float64, rounded once
    return {
        "image_ids": image_ids,
        "ids": Texts.of(map(str, image_ids.tolist())),
        "file_names": Texts.of(file_names),
        "sizes": sizes.astype(np.int32),
        "category_ids": category_ids,
        "category_names": Texts.of(category_names),
        "boxes": boxes[kept].astype(np.float32),
        "labels": labels[kept],
        "crowd": crowd[kept],
        "starts": np.searchsorted(rows[kept], np.arange(len(image_ids) + 1)),
    }


def _careful(path: Path) -> dict[str, NDArray[Any] | Texts]:
    """The same, entry by entry; the first thing that is wrong becomes an error."""
    document = read_json(path)
    category_ids, category_names = _categories(document, path)
    images = entries(document, "images", path)
    if not images:
        raise HarnessError(f"{path}: images: the list is empty; is this the right file?")
    found = unique_ids(images, "id", path, "images")
    order = np.argsort(found)
    names = [str(field(images[n], "file_name", str, path, f"images[{n}]")) for n in order]
    sizes = [[field(images[n], key, int, path, f"images[{n}]") for key in ("height", "width")] for n in order]
    if len(bad := np.flatnonzero([not 0 < min(size) <= max(size) < 2**31 for size in sizes])):
        raise HarnessError(f"{path}: image {found[order[bad[0]]]}: height and width {sizes[bad[0]]} are not a size")
    image_ids = found[order]
    annotations = entries(document, "annotations", path)
    rows, labels, boxes, crowd = _annotations(annotations, image_ids, category_ids, path)
    return _arrays(image_ids, names, np.array(sizes), category_ids, category_names, rows, labels, boxes, crowd)


def _categories(document: dict[str, Any], path: Path) -> tuple[NDArray[np.int64], list[str]]:
    categories = entries(document, "categories", path)
    if not categories:
        raise HarnessError(f"{path}: categories: the list is empty; is this the right file?")
    found = unique_ids(categories, "id", path, "categories")
    order = np.argsort(found)
    return found[order], [str(field(categories[n], "name", str, path, f"categories[{n}]")) for n in order]


def _annotations(
    annotations: list[dict[str, Any]], image_ids: NDArray[np.int64], category_ids: NDArray[np.int64], path: Path
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    unique_ids(annotations, "id", path, "annotations")
    row_of_image = {int(number): row for row, number in enumerate(image_ids)}
    label_of_category = {int(number): label for label, number in enumerate(category_ids)}
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
        is_crowd = annotation.get("iscrowd", 0)
        if is_crowd not in (0, 1):
            raise HarnessError(f"{path}: {place}.iscrowd: {str(is_crowd)[:60]!r} is not 0 or 1")
        boxes[number], rows[number], labels[number] = box, row_of_image[image], label_of_category[category]
        crowd[number] = bool(is_crowd)
    return rows, labels, boxes, crowd
