"""Reading COCO instances annotations for evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.evaluation.columns import boxes, column, integers, mappings, numbers, read_json, show, unique_ids


@dataclass(frozen=True)
class Truth:
    """The ground truth of a data set.

    Attributes:
        name: The file's name, for errors.
        image_ids: int64 [N], sorted.
        sizes: Width and height by image id, None where the file does not say.
        category_ids: int64 [K], sorted.
        category_names: str [K].
        images: int64 [G], image id of each annotation, in the file's order.
        categories: int64 [G].
        boxes: float64 [G, 4], x, y, width, height.
        areas: float64 [G].
        crowd: bool [G]. COCOeval overwrites ``ignore`` flags by it, so they have no effect.
    """

    name: str
    image_ids: NDArray[np.int64]
    sizes: Mapping[int, tuple[float, float] | None]
    category_ids: NDArray[np.int64]
    category_names: NDArray[np.str_]
    images: NDArray[np.int64]
    categories: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]


def read_truth(source: Path | str | Mapping[str, Any]) -> Truth:
    """Read COCO instances annotations.

    Args:
        source: The JSON file, or its content.

    Raises:
        HarnessError: A list or key is missing, an id appears twice or does not exist, or a number is not valid.
    """
    name = str(source) if isinstance(source, (str, Path)) else "truth"
    document = read_json(Path(source), "fetch it again") if isinstance(source, (str, Path)) else source
    if not isinstance(document, Mapping):
        raise HarnessError(
            f"{name}: a mapping with images, categories and annotations is required; is it the right file?"
        )
    images, categories, annotations = (_list(document, key, name) for key in ("images", "categories", "annotations"))
    image_ids = unique_ids(images, "id", f"{name}: images")
    category_ids = unique_ids(categories, "id", f"{name}: categories")
    where = f"{name}: annotations"
    annotation_ids = unique_ids(annotations, "id", where)
    zero = np.flatnonzero(annotation_ids == 0)
    if len(zero):
        raise HarnessError(
            f"{where}[{zero[0]}].id: 0; pycocotools takes a match with annotation 0 for no match at all and its "
            "numbers come out wrong; number annotations from 1"
        )
    of_image = integers(column(annotations, "image_id", where), "image_id", where)
    of_category = integers(column(annotations, "category_id", where), "category_id", where)
    for values, known, key in ((of_image, image_ids, "image_id"), (of_category, category_ids, "category_id")):
        unknown = np.flatnonzero(~np.isin(values, known))
        if len(unknown):
            raise HarnessError(
                f"{where}[{unknown[0]}].{key}: {values[unknown[0]]} is not in the file's {key[:-3]} list"
            )
    truth_boxes = boxes(column(annotations, "bbox", where), where)
    negative = np.flatnonzero((truth_boxes[:, 2:] < 0).any(axis=1))
    if len(negative):
        raise HarnessError(f"{where}[{negative[0]}].bbox: {truth_boxes[negative[0]].tolist()} has a negative side")
    crowd = [entry.get("iscrowd", 0) for entry in annotations]
    for number, flag in enumerate(crowd):
        if flag not in (0, 1):
            raise HarnessError(f"{where}[{number}].iscrowd: {show(flag)} is not 0 or 1")
    order = np.argsort(category_ids)
    names = [str(entry.get("name", entry["id"])) for entry in categories]
    return Truth(
        name,
        np.sort(image_ids),
        {int(i): _size(entry) for i, entry in zip(image_ids, images, strict=True)},
        category_ids[order],
        np.array(names, dtype=np.str_)[order],
        of_image,
        of_category,
        truth_boxes,
        numbers(column(annotations, "area", where), "area", where),
        np.array(crowd, dtype=np.bool_),
    )


def _list(document: Mapping[str, Any], key: str, name: str) -> list[Mapping[str, Any]]:
    entries = document.get(key)
    if not isinstance(entries, list):
        raise HarnessError(f"{name}: {key}: a list is required here; is this an instances file with ground truth?")
    if not mappings(entries):
        number, entry = next((n, entry) for n, entry in enumerate(entries) if not isinstance(entry, Mapping))
        raise HarnessError(f"{name}: {key}[{number}]: {show(entry)} is not a mapping of keys to values")
    return entries


def _size(image: Mapping[str, Any]) -> tuple[float, float] | None:
    width, height = image.get("width"), image.get("height")
    if isinstance(width, (int, float)) and isinstance(height, (int, float)) and width > 0 and height > 0:
        return float(width), float(height)
    return None
