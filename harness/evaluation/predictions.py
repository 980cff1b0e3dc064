"""The official file formats of predictions: strict readers, and writers whose files appear whole or not at all.

- Classification: CSV with the columns ``id,label`` (class index), or NPZ with ``ids`` and ``logits``.
- Detection: COCO results JSON (cocodataset.org/#format-results).
- Segmentation: a folder or ZIP of label-id PNGs with Cityscapes names (see `harness.evaluation.label_maps`).
- VQA: results JSON (visualqa.org/evaluation.html).

Readers take files from strangers: every fault is one `HarnessError` that names the file, the place and the mend.
"""

from __future__ import annotations

import csv
import io
import math
import zipfile
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from harness.atomic import write_bytes
from harness.errors import HarnessError
from harness.evaluation.columns import boxes as read_boxes
from harness.evaluation.columns import column, each_type, integers, numbers, read_json, show
from harness.evaluation.label_maps import write_segmentation

__all__ = [
    "Detections",
    "read_classification",
    "read_detections",
    "read_vqa",
    "write_classification",
    "write_detections",
    "write_segmentation",
    "write_vqa",
]


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
    """Read COCO detection results.

    Args:
        source: A results file, or its content: dicts with ``image_id, category_id, bbox, score``.
        sizes: Width and height of every image of the ground truth, by image id; None where they are not known.
        category_ids: The ground truth's category ids.

    Raises:
        HarnessError: A key is missing or of the wrong type, an image or category is unknown, a number is NaN or
            infinite, a box has a negative side, or boxes are evidently corners (x1, y1, x2, y2).
    """
    entries, where = _entries(source)
    image_ids = integers(column(entries, "image_id", where), "image_id", where)
    categories = integers(column(entries, "category_id", where), "category_id", where)
    scores = numbers(column(entries, "score", where), "score", where)
    boxes = read_boxes(column(entries, "bbox", where), where)
    _known(image_ids, sizes, "image_id", "an image of the ground truth", where)
    _known_categories(categories, category_ids, where)
    _not_corners(boxes, image_ids, sizes, where)
    negative = np.flatnonzero((boxes[:, 2:] < 0).any(axis=1))
    if len(negative):
        box = boxes[negative[0]].tolist()
        raise HarnessError(
            f"{where}[{negative[0]}].bbox: {box} has a negative side; boxes are x, y, width, height in pixels"
        )
    return Detections(image_ids, categories, boxes, scores)


def _entries(source: Path | str | Sequence[Mapping[str, Any]]) -> tuple[Sequence[Mapping[str, Any]], str]:
    """The list of dicts in a results file (or given), and its place for errors."""
    where = f"{source}: " if isinstance(source, (str, Path)) else "results: "
    entries = read_json(Path(source), "write the results again") if isinstance(source, (str, Path)) else source
    if not isinstance(entries, (list, tuple)):
        raise HarnessError(f"{where}a list of results is required, found {type(entries).__name__}")
    for number, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            raise HarnessError(f"{where}[{number}]: {show(entry)} is not a mapping of keys to values")
    return entries, where


def _known(values: NDArray[np.int64], known: Collection[int], key: str, meaning: str, where: str) -> None:
    unknown = set(np.unique(values).tolist()) - set(known)
    if unknown:
        number = int(np.flatnonzero(np.isin(values, list(unknown)))[0])
        raise HarnessError(
            f"{where}[{number}].{key}: {values[number]} is not {meaning}; are these results for another data set or "
            "split?"
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


def read_vqa(source: Path | str | Sequence[Mapping[str, Any]], question_ids: Collection[int]) -> dict[int, str]:
    """Read VQA results.

    Args:
        source: A results file, or its content: dicts with ``question_id`` and ``answer``.
        question_ids: Every question that may be answered.

    Returns:
        Answer by question id.

    Raises:
        HarnessError: A key is missing or of the wrong type, or a question is unknown or answered twice.
    """
    entries, where = _entries(source)
    ids = integers(column(entries, "question_id", where), "question_id", where)
    answers = column(entries, "answer", where)
    each_type(answers, "answer", where, (str,), "text")
    _known(ids, question_ids, "question_id", "a question of the ground truth", where)
    values, first, counts = np.unique(ids, return_index=True, return_counts=True)
    if (counts > 1).any():
        value = values[counts > 1][0]
        number = int(np.flatnonzero(ids == value)[1])
        raise HarnessError(f"{where}[{number}].question_id: {value} appears twice; answer each question once")
    return {int(value): answers[n] for value, n in zip(values, first, strict=True)}


def read_classification(path: Path | str, ids: Sequence[str], classes: int) -> NDArray[Any]:
    """Read a file of class predictions.

    Args:
        path: CSV with a header and the columns ``id`` and ``label`` (a class index), or NPZ with ``ids`` str [N] and
            ``logits`` float [N, C].
        ids: The images to be scored. Each must be predicted once, and no others.
        classes: Number of classes.

    Returns:
        In the order of `ids`: int64 [N], or float [N, C].

    Raises:
        HarnessError: The file cannot be read, an id is unknown, missing or appears twice, or a value is not valid.
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        found, values = _read_csv(path, classes)
    elif path.suffix.lower() == ".npz":
        found, values = _read_npz(path, len(ids), classes)
    else:
        raise HarnessError(f"{path}: a file that ends in .csv (id,label) or .npz (ids, logits) is required")
    place: dict[str, int] = {}
    wanted = set(ids)
    for number, text in enumerate(found):
        if text in place:
            raise HarnessError(f"{path}: id {text!r} appears twice; predict each image once")
        if text not in wanted:
            example = f", such as {ids[0]!r}" if len(ids) else ""
            raise HarnessError(f"{path}: id {text!r} is not an image of the data set; ids are paths{example}")
        place[text] = number
    if len(place) < len(wanted):
        missing = next(text for text in ids if text not in place)
        raise HarnessError(
            f"{path}: {len(wanted) - len(place)} of {len(wanted)} images have no prediction, the first is {missing!r}"
        )
    return values[[place[text] for text in ids]]


def _read_csv(path: Path, classes: int) -> tuple[list[str], NDArray[np.int64]]:
    found: list[str] = []
    labels: list[int] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file, strict=True)
            header = [column.strip() for column in next(rows, [])]
            if header[:2] != ["id", "label"] or len(header) != 2:
                raise HarnessError(f"{path}: line 1: the header must be id,label, found {show(','.join(header))}")
            for row in rows:
                if not row:
                    continue
                if len(row) != 2:
                    raise HarnessError(f"{path}: line {rows.line_num}: {len(row)} columns where 2 are required")
                text = row[1].strip()
                # isdecimal alone lets other scripts' digits pass, and a number of any length
                if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < classes):
                    raise HarnessError(
                        f"{path}: line {rows.line_num}: label {show(text)} is not a class index (0 to {classes - 1})"
                    )
                found.append(row[0])
                labels.append(int(text))
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise HarnessError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except csv.Error as error:
        raise HarnessError(f"{path}: not valid CSV ({error})") from None
    return found, np.array(labels, dtype=np.int64)


def _read_npz(path: Path, images: int, classes: int) -> tuple[list[str], NDArray[Any]]:
    # What predictions of so many images can need: 8 bytes per score, 4 per character of an id of up to 4,096.
    limit = (1 << 20) + images * (8 * classes + 4 * 4096)
    try:
        with zipfile.ZipFile(path) as archive:
            ids, logits = (_member(archive, name, limit) for name in ("ids", "logits"))
    except KeyError as error:
        raise HarnessError(f"{path}: {error.args[0]}: this array is required and missing") from None
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (
        ValueError,
        TypeError,
        SyntaxError,
        TokenError,
        EOFError,
        zlib.error,
        zipfile.BadZipFile,
        RuntimeError,
    ) as error:
        raise HarnessError(f"{path}: not a valid NPZ file of plain arrays ({error}); write it again") from None
    if ids.ndim != 1 or ids.dtype.kind != "U":
        raise HarnessError(f"{path}: ids: shape {list(ids.shape)} and dtype {ids.dtype} where text [N] is required")
    if logits.dtype.kind not in "fiu" or logits.shape != (len(ids), classes):
        raise HarnessError(
            f"{path}: logits: shape {list(logits.shape)} and dtype {logits.dtype} where numbers "
            f"[{len(ids)}, {classes}] are required (images, classes)"
        )
    bad = np.argwhere(~np.isfinite(logits))
    if len(bad):
        row, column = bad[0]
        raise HarnessError(f"{path}: logits[{row}, {column}]: {logits[row, column]} is not a finite number")
    return ids.tolist(), logits


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> NDArray[Any]:
    """One array of an NPZ, whose header is checked before anything of its size is allocated; never unpickled."""
    if f"{name}.npy" not in archive.namelist():
        raise KeyError(name)
    size = archive.getinfo(f"{name}.npy").file_size
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        stated = math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise ValueError(f"{name} holds Python objects")
        if not 0 <= stated <= size <= limit:
            raise ValueError(
                f"{name} states {stated:,} bytes in a file of {size:,}, and at most {limit:,} are accepted"
            )
    with archive.open(f"{name}.npy") as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def write_classification(path: Path | str, ids: Sequence[str], logits: NDArray[Any]) -> None:
    """Write class predictions as NPZ: ``ids`` str [N], ``logits`` float [N, C]. Equal values give equal bytes."""
    if len(ids) != len(logits):
        raise HarnessError(f"{path}: {len(ids)} ids for {len(logits)} rows of logits")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in (("ids", np.asarray(ids, dtype=np.str_)), ("logits", np.asarray(logits))):
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
    write_bytes(Path(path), buffer.getvalue())


def write_detections(path: Path | str, results: Iterable[Mapping[str, Any]]) -> None:
    """Write COCO results JSON: dicts with ``image_id, category_id, bbox`` (x, y, width, height) ``, score``."""
    write_bytes(Path(path), orjson.dumps(list(results), option=orjson.OPT_SERIALIZE_NUMPY))


def write_vqa(path: Path | str, ids: Sequence[int], answers: Sequence[str]) -> None:
    """Write VQA results JSON: one answer per question id."""
    if len(ids) != len(answers):
        raise HarnessError(f"{path}: {len(ids)} question ids for {len(answers)} answers")
    results = [{"question_id": int(i), "answer": answer} for i, answer in zip(ids, answers, strict=True)]
    write_bytes(Path(path), orjson.dumps(results))
