"""Regenerating a board's files from its records, and verifying that every number follows from the statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from harness.atomic import json_bytes, write_bytes
from harness.board.evidence import Evidence
from harness.board.html import render
from harness.board.records import Record, TaskResult, read_records, read_statistics
from harness.board.tables import board_document, markdown
from harness.errors import HarnessError
from harness.evaluation.metric import Result

TOLERANCE = 1e-9  # sums of float64 differ by less between machines; a changed number differs by more


def write_board(board: Path) -> list[Path]:
    """Regenerate ``README.md``, ``board.json`` and ``index.html`` from ``records/``.

    The same records give the same bytes, whatever else lies in the folder.

    Args:
        board: The board's folder.

    Returns:
        The files written.

    Raises:
        HarnessError: A record cannot be read, or the folder cannot be written.
    """
    document = board_document(board)
    written = []
    for name, content in _files(board, document).items():
        write_bytes(board / name, content)
        written.append(board / name)
    return written


def verify(board: Path) -> list[str]:
    """Recompute every number of a board from the stored statistics, without its cache.

    Args:
        board: The board's folder.

    Returns:
        One sentence per problem: a record that cannot be read, statistics that are not the record's, a number that
        they do not give, or a generated file that the records do not give. Empty if all is well.
    """
    try:
        records = read_records(board)
    except HarnessError as error:
        return [str(error)]
    problems = [problem for record in records for problem in _verify_record(board, record)]
    document = board_document(board, Evidence(board, cached=False))
    for name, content in _files(board, document).items():
        path = board / name
        try:
            stored = path.read_bytes()
        except OSError:
            problems.append(f"{path}: cannot be read; run harness leaderboard")
            continue
        if name == "board.json":
            place = _difference(document, _parsed(stored))
            if place:
                problems.append(f"{path}: {place}: is not what the records give; run harness leaderboard")
        elif stored != content:
            problems.append(f"{path}: is not what the records give; run harness leaderboard")
    return problems


def _files(board: Path, document: Mapping[str, Any]) -> dict[str, bytes]:
    return {
        "README.md": markdown(document).encode(),
        "board.json": json_bytes(document),
        "index.html": render(document, read_records(board)).encode(),
    }


def _verify_record(board: Path, record: Record) -> list[str]:
    try:
        results = read_statistics(board, record)
    except HarnessError as error:
        return [str(error)]
    path = board / "records" / record.id / "record.json"
    return [
        f"{path}: tasks.{card}.{text}" for card, task in record.tasks.items() for text in _wrong(task, results[card])
    ]


def _wrong(task: TaskResult, result: Result) -> list[str]:
    """What a task's result says that its statistics do not."""
    problems = []
    if task.main != result.main:
        problems.append(f"main: is {task.main!r}, the metric's headline number is {result.main!r}")
    if task.images != len(result.ids):
        problems.append(f"images: is {task.images}, the statistics hold {len(result.ids)}")
    for field, said, given in (
        ("metrics", task.metrics, result.reduce()),
        ("per_class", task.per_class, result.per_class()),
    ):
        for key in sorted(said.keys() | given.keys()):
            if key not in said or key not in given:
                problems.append(f"{field}: {key!r} is in the {'statistics' if key in given else 'record'} only")
            elif not _equal(said[key], given[key]):
                problems.append(f"{field}.{key}: is {said[key]}, the statistics give {given[key]}")
    return problems


def _equal(said: float | None, given: float | None) -> bool:
    """Whether two numbers agree; undefined is None in a document and NaN in arithmetic."""
    undefined = [value is None or not math.isfinite(value) for value in (said, given)]
    if any(undefined) or said is None or given is None:
        return all(undefined)
    return math.isclose(said, given, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def _parsed(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None


def _difference(expected: Any, found: Any, place: str = "") -> str:
    """Where two JSON documents first differ by more than rounding; empty if nowhere."""
    here = place or "top"
    if isinstance(expected, Mapping):
        if not isinstance(found, dict) or expected.keys() != found.keys():
            return here
        parts = [(key, expected[key], found[key]) for key in expected]
    elif isinstance(expected, list):
        if not isinstance(found, list) or len(expected) != len(found):
            return here
        parts = [(str(index), *both) for index, both in enumerate(zip(expected, found, strict=True))]
    else:
        number = isinstance(expected, float) and isinstance(found, (int, float)) and not isinstance(found, bool)
        return "" if (_equal(expected, found) if number else expected == found) else here
    for key, one, other in parts:
        inside = _difference(one, other, f"{place}.{key}".lstrip("."))
        if inside:
            return inside
    return ""
