"""Checks of PASCAL VOC's layout: a list of names, one XML file per image, and a folder of images."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.cards import DatasetCard
from harness.data.checking.boxes import check_boxes
from harness.data.checking.findings import Findings
from harness.data.checking.image_files import ImageFiles
from harness.data.checking.plans import SplitPlan, existing, listed_names

_EDGES = ("xmin", "ymin", "xmax", "ymax")
MAX_XML_BYTES = 10_000_000


def plan_voc(card: DatasetCard, split: str, found: Findings) -> SplitPlan:
    """The images of a list in ``ImageSets/Main`` with their XML files; splits share the folders."""
    images = ImageFiles(card, split, found)
    plan = SplitPlan(images)
    names = existing(card, split, "names", found)
    annotations = existing(card, split, "annotations", found)
    if not images.there or names is None or annotations is None:
        return plan
    classes = frozenset(entry.name for entry in card.classes)
    rows = listed_names(names, split, found)
    suffix = card.splits[split].image_suffix  # type: ignore[index]
    sizes: list[tuple[int, int]] = []
    plan.objects = 0
    for name, *_ in rows:
        file = annotations / f"{name}.xml"
        if file.is_file():
            size, objects = _read(file, name, split, classes, plan, found)
            plan.objects += objects
        else:
            size = (0, 0)
            message = f"{names.name} lists the image and its XML file does not exist; complete the data set"
            found.add("annotation-missing", split, file, name, message)
        if images.has(name + suffix):
            plan.names.append(name + suffix)
            plan.ids.append(name)
            sizes.append(size)
        else:
            message = f"listed in {names.name} and does not exist; complete the data set"
            found.add("image-missing", split, images.path(name + suffix), name, message)
    plan.sizes = np.array(sizes, dtype=np.int32).reshape(-1, 2)
    plan.size = len(rows)
    plan.counts = {"images": len(rows), "boxes": plan.objects, "categories": len(plan.classes)}
    return plan


def _read(
    file: Path, name: str, split: str, classes: frozenset[str], plan: SplitPlan, found: Findings
) -> tuple[tuple[int, int], int]:
    """The stated width and height of one image ((0, 0) if not usable) and its number of objects."""
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, parse

    try:
        if file.stat().st_size > MAX_XML_BYTES:
            raise ValueError(f"more than {MAX_XML_BYTES:,} bytes")
        root = parse(file, forbid_dtd=True).getroot()
        if root is None:
            raise ValueError("empty")
    except (ParseError, DefusedXmlException, OSError, ValueError, LookupError) as error:
        message = f"not a usable XML file ({str(error) or type(error).__name__}); fetch it again"
        found.add("file-unreadable", split, file, name, message)
        return (0, 0), 0
    sides = [_number(root.findtext(f"size/{side}")) for side in ("width", "height")]
    size = (int(sides[0]), int(sides[1])) if all(0 < side < 2**31 for side in sides) else (0, 0)
    if size == (0, 0):
        found.add("entry-invalid", split, file, name, "states no width and height in pixels; correct the size")
    objects = root.findall("object")
    boxes: list[list[float]] = []
    for number, entry in enumerate(objects):
        kind = (entry.findtext("name") or "").strip()
        if kind in classes:
            plan.classes[kind] += 1
        else:
            message = f"object {number} is a {kind[:40]!r}, which is not among the card's classes; correct it"
            found.add("category-unknown", split, file, name, message)
        edges = [_number(entry.findtext(f"bndbox/{edge}")) for edge in _EDGES]
        if all(map(math.isfinite, edges)):
            left, top, right, bottom = edges  # counted from 1, the last pixel included
            boxes.append([left - 1, top - 1, right - left + 1, bottom - top + 1])
        else:
            message = f"object {number} has no box with xmin, ymin, xmax and ymax; correct it"
            found.add("entry-invalid", split, file, name, message)
    values: NDArray[np.float64] = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    for code, row, message in check_boxes(values, np.tile(np.array(size, dtype=np.float64), (len(boxes), 1))):
        found.add(code, split, file, name, f"box {row}, as [x, y, width, height] from 0: {message}")
    return size, len(objects)


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
