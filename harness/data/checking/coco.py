"""Checks of COCO's layout: an instances JSON and a folder of images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from harness.cards import DatasetCard
from harness.data.checking.boxes import check_boxes
from harness.data.checking.findings import Findings
from harness.data.checking.image_files import ImageFiles
from harness.data.checking.plans import SplitPlan, existing, is_inside, mappings, read_document


def plan_coco(card: DatasetCard, split: str, found: Findings) -> SplitPlan:
    """Images, categories and boxes of one instances file."""
    files = ImageFiles(card, split, found)
    plan = SplitPlan(files)
    path = existing(card, split, "annotations", found)
    if path is None:
        return plan
    document = read_document(path, split, found)
    if document is None:
        return plan
    sizes = _images(document, path, split, plan, files, found)
    names = _categories(document, path, split, found)
    _annotations(document, path, split, plan, sizes, names, found)
    plan.counts = {"images": plan.size, "boxes": plan.objects or 0, "categories": len(names)}
    return plan


def _images(
    document: Any, path: Path, split: str, plan: SplitPlan, files: ImageFiles, found: Findings
) -> dict[int, tuple[int, int]]:
    """Fill in the plan's images; the stated width and height by image id, (0, 0) where it is not usable."""
    sizes: dict[int, tuple[int, int]] = {}
    names: set[str] = set()
    kept: list[tuple[int, int]] = []
    for number, image in mappings(document, "images", path, split, found):
        place = f"images[{number}]"
        image_id, name = image.get("id"), image.get("file_name")
        if not isinstance(image_id, int) or isinstance(image_id, bool) or not isinstance(name, str):
            found.add("entry-invalid", split, path, place, "has no whole-number id and file_name; correct the entry")
            continue
        if image_id in sizes:
            found.add("duplicate-id", split, path, image_id, f"{place}: an earlier image has this id; remove one")
            continue
        size = (image.get("width"), image.get("height"))
        if not all(type(side) is int and 0 < side < 2**31 for side in size):
            message = f"{place}: width and height {size} are not a size in pixels; correct them"
            found.add("entry-invalid", split, path, image_id, message)
            size = (0, 0)
        sizes[image_id] = size  # type: ignore[assignment]
        if not is_inside(name):
            message = f"{place}: file_name {name[:80]!r} leaves the image folder; correct it"
            found.add("entry-invalid", split, path, image_id, message)
        elif name in names:
            message = f"{place}: an earlier image has the file_name {name!r}, too; remove one"
            found.add("duplicate-id", split, path, image_id, message)
        elif not files.there:
            pass  # told once
        elif not files.has(name):
            message = f"{place} names it and it does not exist; complete the data set"
            found.add("image-missing", split, files.path(name), image_id, message)
        else:
            plan.names.append(name)
            plan.ids.append(str(image_id))
            kept.append(sizes[image_id])
        names.add(name)
    plan.size = len(sizes)
    plan.sizes = np.array(kept, dtype=np.int32).reshape(-1, 2)
    plan.unlisted = files.unlisted()
    return sizes


def _categories(document: Any, path: Path, split: str, found: Findings) -> dict[int, str]:
    names: dict[int, str] = {}
    for number, category in mappings(document, "categories", path, split, found):
        key, name = category.get("id"), category.get("name")
        if not isinstance(key, int) or isinstance(key, bool) or not isinstance(name, str):
            message = "has no whole-number id and name; correct the entry"
            found.add("entry-invalid", split, path, f"categories[{number}]", message)
        elif key in names:
            message = f"categories[{number}]: an earlier category has this id; remove one"
            found.add("duplicate-id", split, path, key, message)
        else:
            names[key] = name
    return names


def _annotations(
    document: Any,
    path: Path,
    split: str,
    plan: SplitPlan,
    sizes: dict[int, tuple[int, int]],
    names: dict[int, str],
    found: Findings,
) -> None:
    """Orphans, categories, box values and bounds."""
    seen: set[object] = set()
    owners: list[tuple[object, int]] = []
    values: list[list[float]] = []
    limits: list[tuple[int, int]] = []
    count = 0
    for number, annotation in mappings(document, "annotations", path, split, found):
        count += 1
        item, image, category, box = (annotation.get(key) for key in ("id", "image_id", "category_id", "bbox"))
        if type(item) is not int:
            found.add("entry-invalid", split, path, f"annotations[{number}]", "has no whole-number id; add one")
            item = f"annotations[{number}]"
        elif item in seen:
            message = f"annotations[{number}]: an earlier annotation has this id; remove one"
            found.add("duplicate-id", split, path, item, message)
        seen.add(item)
        if type(image) is not int or image not in sizes:
            message = f"annotation {item} is of image {_shown(image)}, which the file does not list; remove it"
            found.add("annotation-orphaned", split, path, item, message)
            continue
        if type(category) is not int or category not in names:
            message = f"annotation {item} has category {_shown(category)}, which the file does not list; correct it"
            found.add("category-unknown", split, path, item, message)
        else:
            plan.classes[names[category]] += 1
        if annotation.get("iscrowd", 0) not in (0, 1):
            message = f"annotation {item}: iscrowd {_shown(annotation['iscrowd'])} is not 0 or 1; correct it"
            found.add("entry-invalid", split, path, item, message)
        if not _is_box(box):
            message = f"annotation {item}: bbox {_shown(box)} is not [x, y, width, height] in pixels; correct it"
            found.add("entry-invalid", split, path, item, message)
            continue
        owners.append((item, image))
        values.append(box)
        limits.append(sizes[image])
    plan.objects = count
    boxes: NDArray[np.float64] = np.array(values, dtype=np.float64).reshape(-1, 4)
    for code, row, message in check_boxes(boxes, np.array(limits, dtype=np.float64).reshape(-1, 2)):
        item, image = owners[row]
        found.add(code, split, path, item, f"annotation {item} of image {image}: {message}")


def _is_box(box: object) -> TypeGuard[list[float]]:
    return isinstance(box, list) and len(box) == 4 and all(type(v) in (int, float) and math.isfinite(v) for v in box)


def _shown(value: object) -> str:
    return repr(value)[:60]
