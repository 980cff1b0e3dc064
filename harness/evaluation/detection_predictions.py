"""Reading detected boxes: COCO results JSON, and the same columns as NPZ or Parquet arrays.

A JSON file of ordinary shape is read by compiled code (`harness.evaluation.json_kernels`); anything unusual is read
again with care, so that an error names its place.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.evaluation.array_files import read_npz, read_parquet
from harness.evaluation.columns import LARGEST, column, entries_of, integers, known_ids, numbers, show
from harness.evaluation.columns import boxes as read_boxes

_FAST = 1 << 20  # bytes of JSON from which on loading the compiled reader pays
_ROWS_PER_IMAGE = 1000  # accepted on average in files of arrays, whose true size shows only when they are unpacked
COLUMNS = ("image_id", "category_id", "bbox", "score")


@dataclass(frozen=True)
class Detections:
    """Detected boxes in the file's order.

    Attributes:
        image_ids: int64 [N].
        category_ids: int64 [N].
        boxes: float64 [N, 4], x, y, width, height in pixels.
        scores: float64 [N], finite.
    """

    image_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]


def read_detections(
    source: Path | str | Sequence[Mapping[str, Any]],
    sizes: Mapping[int, tuple[float, float] | None],
    category_ids: Collection[int],
) -> Detections:
    """Read detected boxes.

    Args:
        source: A COCO results file, or its content: dicts with ``image_id, category_id, bbox, score``. Or a file whose
            name ends in ``.npz`` or ``.parquet`` with arrays of these names: whole numbers [N], [N], numbers [N, 4],
            [N].
        sizes: Width and height of every image of the ground truth, by image id; None where they are not known.
        category_ids: The ground truth's category ids.

    Raises:
        HarnessError: A key is missing or of the wrong type, an image or category is unknown, a number is NaN or
            infinite, a box has a negative side, or boxes are evidently corners (x1, y1, x2, y2).
    """
    found, where = _read(source, len(sizes))
    known_ids(found.image_ids, sizes, "image_id", "an image of the ground truth", where)
    _known_categories(found.category_ids, category_ids, where)
    _not_corners(found.boxes, found.image_ids, sizes, where)
    boxes = found.boxes
    if len(boxes) and boxes[:, 2:].min() < 0:
        number = int(np.flatnonzero((boxes[:, 2:] < 0).any(axis=1))[0])
        raise HarnessError(
            f"{where}[{number}].bbox: {boxes[number].tolist()} has a negative side; boxes are x, y, width, height in "
            "pixels"
        )
    return found


def _read(source: Path | str | Sequence[Mapping[str, Any]], images: int) -> tuple[Detections, str]:
    """The columns of a file (or list), finite but otherwise unchecked, and its place for errors."""
    path = Path(source) if isinstance(source, (str, Path)) else None
    if path is not None and path.suffix.lower() in (".npz", ".parquet"):
        rows = (1 << 20) + _ROWS_PER_IMAGE * images
        limit = 4096 + rows * 4 * 8
        if path.suffix.lower() == ".npz":
            return _from_arrays(read_npz(path, COLUMNS, limit), str(path)), f"{path}: row "
        return _from_arrays(read_parquet(path, COLUMNS, rows, limit), str(path)), f"{path}: row "
    if path is not None and path.is_file() and path.stat().st_size >= _FAST:
        from harness.evaluation.json_kernels import parse  # here: loading numba would slow the scoring of small files

        try:
            columns = parse(path.read_bytes())
        except OSError:
            columns = None  # the careful reader says why
        if columns is not None and np.abs(columns[2]).max(initial=0) <= LARGEST:
            return Detections(*columns), f"{source}: "
    entries, where = entries_of(source)
    return Detections(
        integers(column(entries, "image_id", where), "image_id", where),
        integers(column(entries, "category_id", where), "category_id", where),
        read_boxes(column(entries, "bbox", where), where),
        numbers(column(entries, "score", where), "score", where),
    ), where


def _from_arrays(arrays: Sequence[NDArray[Any]], name: str) -> Detections:
    size = len(arrays[0]) if arrays[0].ndim else 0
    for key, array in zip(COLUMNS, arrays, strict=True):
        shape = (size, 4) if key == "bbox" else (size,)
        kinds, meaning = ("iu", "whole numbers") if key.endswith("_id") else ("fiu", "numbers")
        if array.dtype.kind not in kinds or array.shape != shape:
            raise HarnessError(
                f"{name}: {key}: shape {list(array.shape)} and dtype {array.dtype} where {meaning} {list(shape)} are "
                "required"
            )
        if array.dtype.kind == "f":
            bad = np.argwhere(~(np.abs(array.astype(np.float64)) <= (LARGEST if key == "bbox" else np.inf)))
            bad = np.argwhere(~np.isfinite(array)) if not len(bad) else bad
        else:
            bad = np.argwhere(array > np.iinfo(np.int64).max)
        if len(bad):
            raise HarnessError(f"{name}: {key}[{bad[0][0]}]: {array[tuple(bad[0])]} is not finite, or too large")
    image, category, boxes, scores = arrays
    return Detections(
        image.astype(np.int64), category.astype(np.int64), boxes.astype(np.float64), scores.astype(np.float64)
    )


def _known_categories(values: NDArray[np.int64], known: Collection[int], where: str) -> None:
    used = set(np.unique(values).tolist())
    unknown = used - set(known)
    if not unknown:
        return
    number = int(np.flatnonzero(np.isin(values, list(unknown)))[0])
    place = f"{where}[{number}].category_id: {values[number]} is not a category of the ground truth"
    count = len(known)
    for first in (0, 1):
        if set(known) != set(range(first, first + count)) and used <= set(range(first, first + count)):
            raise HarnessError(
                f"{place}; the results seem to number the {count} categories from {first} without gaps, where the "
                "ground truth's own ids are required (a list from index to category id is: sorted ids of its "
                "'categories')"
            )
    raise HarnessError(f"{place}; its ids are {show(sorted(known))}")


def _not_corners(
    boxes: NDArray[np.float64],
    image_ids: NDArray[np.int64],
    sizes: Mapping[int, tuple[float, float] | None],
    where: str,
) -> None:
    """Refuse boxes that only make sense as corners.

    As x1, y1, x2, y2 all lie in their image; as x, y, width, height most stick out. Boxes that are really meant as the
    latter all but never meet both conditions at once.
    """
    if len(boxes) < 3 or (boxes[:, 2:] < boxes[:, :2]).any():
        return
    images, inverse = np.unique(image_ids, return_inverse=True)
    known = [sizes[image] for image in images.tolist()]
    if any(size is None for size in known):
        return
    size = np.array(known, dtype=np.float64)[inverse]
    inside_as_corners = (boxes[:, 2:] <= size + 1).all() and (boxes[:, :2] >= -1).all()
    sticks_out = (boxes[:, :2] + boxes[:, 2:] > size + 1).any(axis=1)
    if inside_as_corners and sticks_out.mean() > 0.5:
        number = int(np.flatnonzero(sticks_out)[0])
        raise HarnessError(
            f"{where}[{number}].bbox: {boxes[number].tolist()} reaches beyond its image of "
            f"{size[number, 0]:g} x {size[number, 1]:g} pixels, as do {sticks_out.mean():.0%} of the boxes; they seem "
            "to be corners (x1, y1, x2, y2) where x, y, width, height is required"
        )
