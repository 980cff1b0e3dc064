"""The official file formats of predictions: strict readers, and writers whose files appear whole or not at all.

- Classification: CSV with the columns ``id,label`` (class index), or NPZ with ``ids`` and ``logits``.
- Detection: COCO results JSON (cocodataset.org/#format-results), or the same columns as NPZ or Parquet (see
  `harness.evaluation.detection_predictions`).
- Segmentation: a folder or ZIP of label-id PNGs with Cityscapes names (see `harness.evaluation.label_maps`).
- VQA: results JSON (visualqa.org/evaluation.html).

Readers take files from strangers: every fault is one `HarnessError` that names the file, the place and the mend.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from harness.atomic import write_bytes
from harness.errors import HarnessError
from harness.evaluation.array_files import read_npz
from harness.evaluation.columns import (
    Id,
    column,
    distinct,
    each_type,
    entries_of,
    integers,
    known_ids,
    read_typed,
    show,
)
from harness.evaluation.detection_predictions import Detections, read_detections
from harness.evaluation.files import require_file
from harness.evaluation.label_maps import write_segmentation

__all__ = [
    "Detections",
    "read_answers",
    "read_classification",
    "read_detections",
    "read_vqa",
    "write_classification",
    "write_detections",
    "write_segmentation",
    "write_vqa",
]


def read_vqa(source: Path | str | Sequence[Mapping[str, Any]], question_ids: Collection[int]) -> dict[int, str]:
    """Answer by question id: `read_answers` as a mapping."""
    ids, answers = read_answers(source, question_ids)
    return dict(zip(ids.tolist(), answers, strict=True))


class _Answer(msgspec.Struct, gc=False):
    question_id: Id
    answer: str


def read_answers(
    source: Path | str | Sequence[Mapping[str, Any]], question_ids: Collection[int]
) -> tuple[NDArray[np.int64], list[str]]:
    """Read VQA results.

    Args:
        source: A results file, or its content: dicts with ``question_id`` and ``answer``.
        question_ids: Every question that may be answered.

    Returns:
        In the file's order int64 [Q] question ids, and the answer to each.

    Raises:
        HarnessError: A key is missing or of the wrong type, or a question is unknown or answered twice.
    """
    typed = read_typed(Path(source), list[_Answer]) if isinstance(source, (str, Path)) else None
    if typed is not None:
        where, ids = f"{source}: ", np.array([one.question_id for one in typed], np.int64)
        answers = [one.answer for one in typed]
    else:
        entries, where = entries_of(source)
        ids = integers(column(entries, "question_id", where), "question_id", where)
        answers = column(entries, "answer", where)
        each_type(answers, "answer", where, (str,), "text")
    known_ids(ids, question_ids, "question_id", "a question of the ground truth", where)
    return distinct(ids, "question_id", where, "; answer each question once"), answers


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
    require_file(path)
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
    ids, logits = read_npz(path, ("ids", "logits"), limit)
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
