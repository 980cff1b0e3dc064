"""The folder of records: written whole or not at all, read strictly, and the only state that a board has."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from numpy.typing import NDArray
from pydantic import ValidationError

from harness.atomic import directory, json_bytes, locked, make_folder
from harness.board.names import check_name
from harness.board.packing import MAX_STATISTICS_BYTES, Arrays, hash_arrays, pack, unpack
from harness.board.schema import (
    SCHEMA_VERSION,
    TRUST,
    Cost,
    Protocol,
    Provenance,
    Record,
    Rerun,
    TaskResult,
    migrate,
)
from harness.cards import METRIC_OF_TASK
from harness.documents import describe
from harness.errors import HarnessError, suggestion
from harness.evaluation import result_class
from harness.evaluation.metric import Result

__all__ = [
    "SCHEMA_VERSION",
    "TRUST",
    "Cost",
    "Protocol",
    "Provenance",
    "Record",
    "Rerun",
    "TaskResult",
    "find_entry",
    "hash_arrays",
    "migrate",
    "read_record",
    "read_records",
    "read_statistics",
    "write_record",
    "write_records",
]

Stored = tuple[Record, Mapping[str, Arrays]]  # a record, and its statistics by dataset card

RECORD, STATISTICS = "record.json", "statistics.npz"
MAX_RECORD_BYTES = 20_000_000

_FOLDER = re.compile(r"[0-9a-f]{12}-seed[0-9]{1,19}")


def write_record(
    board: Path,
    record: Record,
    statistics: Mapping[str, Arrays],
    replace: bool = False,
    gallery: Mapping[str, bytes] | None = None,
) -> Path:
    """Store a record, its statistics and its pictures; all files appear together or not at all. See `write_records`.

    Args:
        board: The board's folder; ``records/`` lies in it.
        record: What to store.
        statistics: For each dataset card of the record, ``Result.statistics``.
        replace: Whether a record of the same id with other numbers gives way.
        gallery: Further files by name, from `harness.gallery.make_gallery`.

    Returns:
        The record's folder.

    Raises:
        HarnessError: As `write_records`.
    """
    return write_records(board, [(record, statistics)], replace, {record.id: gallery or {}})[0]


def write_records(
    board: Path,
    items: Sequence[Stored],
    replace: bool = False,
    galleries: Mapping[str, Mapping[str, bytes]] | None = None,
) -> list[Path]:
    """Store records and their statistics: all are checked before the first is stored.

    A record with the same id that differs in cost and provenance only (a rerun) gives way, and what is proven of its
    numbers stays proven: trust does not fall, and its pictures stay if there are no new ones. One with other numbers
    gives way only when asked.

    Args:
        board: The board's folder; ``records/`` lies in it.
        items: Records, each with ``Result.statistics`` by dataset card.
        replace: Whether records of the same id with other numbers give way.
        galleries: Further files by name, by the record's id.

    Returns:
        The records' folders.

    Raises:
        HarnessError: Statistics are not those that a record names, a name differs from another in upper and lower case
            only, or a record of an id with other numbers exists and `replace` is false, or the disk is full.
    """
    packed = [_packed(board, record, statistics) for record, statistics in items]
    make_folder(board / "records")
    with locked(board / "records"):  # so that nobody stores other numbers between the look and the step
        for record, _ in items:
            check_name(board, record.name)
        documents = [_document(board, record, replace) for record, _ in items]
        folders = [board / "records" / record.id for record, _ in items]
        for (record, _), folder, (document, same), archive in zip(items, folders, documents, packed, strict=True):
            pictures = (galleries or {}).get(record.id) or (_pictures(folder) if same else {})
            with directory(folder, replace=True) as temporary:
                for name, content in {RECORD: document, STATISTICS: archive, **pictures}.items():
                    (temporary / name).write_bytes(content)
    return folders


def _packed(board: Path, record: Record, statistics: Mapping[str, Arrays]) -> bytes:
    folder = board / "records" / record.id
    if set(statistics) != set(record.tasks):
        raise HarnessError(f"{folder}: statistics of {sorted(statistics)} given for tasks {sorted(record.tasks)}")
    for card, arrays in statistics.items():
        if hash_arrays(arrays) != record.tasks[card].statistics:
            raise HarnessError(f"{folder}: tasks.{card}.statistics: is not the hash of the arrays given")
    return pack({f"{card}/{name}": array for card, arrays in statistics.items() for name, array in arrays.items()})


def _pictures(folder: Path) -> dict[str, bytes]:
    """What lies beside a record and its statistics."""
    kept = (path for path in folder.iterdir() if path.name not in (RECORD, STATISTICS) and not path.is_symlink())
    return {path.name: path.read_bytes() for path in kept if path.is_file()}


def _document(board: Path, record: Record, replace: bool) -> tuple[bytes, bool]:
    """What is written of a record, seen what is stored under its id, and whether that has the same numbers."""
    folder = board / "records" / record.id
    other = ""
    try:
        stored = _read(folder) if folder.exists() else None
    except HarnessError:
        if not replace:
            raise
        stored = None  # a damaged record gives way to the one that replaces it
    if stored is not None:
        other = differing(stored, record)
        if other and not replace:
            raise HarnessError(f"{folder}: a record of this id exists with another {other}; {_mend(record)}")
        if not other and TRUST.index(stored.trust) > TRUST.index(record.trust):
            record = record.model_copy(update={"trust": stored.trust, "rerun": stored.rerun})
    return json_bytes(record.model_dump(mode="json")), stored is not None and not other


def _mend(record: Record) -> str:
    """What can be done where a record of the same id has other numbers."""
    if record.submission is None:
        return "score under another name, or remove this folder and score again"
    return (
        "the same submission, seed and machine should give the same numbers: find out why, or replace it by "
        "harness submit --fresh"
    )


def read_records(board: Path) -> list[Record]:
    """Every record of a board, sorted by id. Nothing is changed, whatever is found.

    Args:
        board: The board's folder.

    Returns:
        The records; an empty list if there is no ``records/`` folder.

    Raises:
        HarnessError: A file is out of place, a link, not JSON, of a newer schema, not valid, or its content belongs
            elsewhere; the message names the file, the field and the mend.
    """
    records = []
    for name in _folders(board / "records"):
        for folder in _folders(name):
            if not _FOLDER.fullmatch(folder.name):
                raise HarnessError(f"{folder}: a record's folder is called <fingerprint>-seed<k>; move this elsewhere")
            records.append(_read(folder))
    return records


def read_record(board: Path, identity: str) -> Record | None:
    """One record of a board, without a look at the others.

    Args:
        board: The board's folder.
        identity: Its `Record.id`.

    Returns:
        The record, or None if there is none of this id.

    Raises:
        HarnessError: Its file is missing or not valid.
    """
    folder = board / "records" / identity
    return _read(folder) if folder.is_dir() else None


def parse_record(raw: bytes, source: str) -> Record:
    """A record from the bytes of its ``record.json``, brought to the current schema.

    Args:
        raw: The bytes.
        source: The file's name, for errors.

    Raises:
        HarnessError: They are not JSON, of a newer schema, or not a valid record.
    """
    if (record := _current(raw)) is not None:
        return record
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise HarnessError(f"{source}: not valid JSON ({error}); restore the file, or submit the entry again") from None
    if not isinstance(document, dict):
        raise HarnessError(f"{source}: expected a JSON object; restore the file, or submit the entry again")
    try:
        migrated = migrate(document, source)
        return Record.model_validate_json(orjson.dumps(migrated), strict=True)
    except orjson.JSONEncodeError:  # what is read may be nested deeper than what can be written
        raise HarnessError(f"{source}: is nested too deeply; restore the file, or submit the entry again") from None
    except ValidationError as error:
        raise HarnessError(describe(error, Record, source)) from None


def read_statistics(board: Path, record: Record) -> dict[str, Result]:
    """The per-image statistics of a record, checked against its hashes.

    Args:
        board: The board's folder.
        record: One of its records.

    Returns:
        Result by dataset card.

    Raises:
        HarnessError: The file is missing, damaged, too large, holds objects or other arrays than the record names, or
            was made with another version of a metric, or with a metric that is not the task's.
    """
    path = board / "records" / record.id / STATISTICS
    return parse_statistics(_bytes(path, MAX_STATISTICS_BYTES), record, str(path))


def parse_statistics(raw: bytes, record: Record, source: str, limit: int = MAX_STATISTICS_BYTES) -> dict[str, Result]:
    """As `read_statistics`, from the bytes of a ``statistics.npz``.

    Args:
        raw: The bytes.
        record: The record that they belong to.
        source: The file's name, for errors.
        limit: How many bytes they may unpack to.
    """
    arrays: dict[str, dict[str, NDArray[Any]]] = {card: {} for card in record.tasks}
    for key, array in unpack(raw, source, limit).items():
        card, _, name = key.partition("/")
        if card not in arrays or not name:
            raise HarnessError(f"{source}: {key!r} belongs to no task of the record; submit the entry again")
        arrays[card][name] = array
    results = {}
    for card, task in record.tasks.items():
        if hash_arrays(arrays[card]) != task.statistics:
            raise HarnessError(f"{source}: the arrays of {card} are not those that the record names; submit it again")
        try:
            kind = result_class(task.protocol.metric)
        except HarnessError as error:
            raise HarnessError(f"{source}: {card}: {error}") from None
        if kind.metric != METRIC_OF_TASK[task.task]:
            raise HarnessError(
                f"{source}: {card}: {task.task} is scored by {METRIC_OF_TASK[task.task]}, not by {kind.metric}; submit "
                "the entry again"
            )
        if kind.version != task.protocol.metric_version:
            raise HarnessError(
                f"{source}: {card} was scored with {kind.metric} version {task.protocol.metric_version}, this harness "
                f"has version {kind.version}; score its predictions again"
            )
        try:
            results[card] = kind.from_statistics(arrays[card])
        except HarnessError as error:
            raise HarnessError(f"{source}: {card}: {error}") from None
    return results


def find_entry(records: Iterable[Record], text: str) -> list[Record]:
    """All seeds of the entry that a text names.

    Args:
        records: The board's records.
        text: ``name``, or ``name@fingerprint`` where several entries have the name.

    Returns:
        The entry's records, by seed.

    Raises:
        HarnessError: No entry is called so, or several are.
    """
    entries: dict[str, list[Record]] = {}
    for record in records:
        entries.setdefault(record.entry, []).append(record)
    found = [key for key in entries if text in (key, entries[key][0].name)]
    if not found:
        names = {entries[key][0].name for key in entries} | (set(entries) if "@" in text else set())
        raise HarnessError(f"{text!r} is no entry of this board{suggestion(text, names, 'harness leaderboard')}")
    if len(found) > 1:
        raise HarnessError(f"{text!r} names {len(found)} entries; write one of {', '.join(sorted(found))}")
    return sorted(entries[found[0]], key=lambda record: record.seed)


def differing(old: Record, new: Record) -> str:
    """Which field two records of one id differ in, cost, provenance and trust aside; empty if in none."""
    before, after = old.deterministic(), new.deterministic()
    if before == after:
        return ""
    field = next(key for key in after if before[key] != after[key])
    if field == "tasks":
        cards = sorted(
            card for card in old.tasks.keys() | new.tasks.keys() if old.tasks.get(card) != new.tasks.get(card)
        )
        return f"result of {', '.join(cards)}"
    return field


def _folders(parent: Path) -> list[Path]:
    """The folders in a folder, by name. Hidden names (unfinished writes, .gitkeep) are not looked at."""
    try:
        with os.scandir(parent) as listing:
            found = sorted((item for item in listing if not item.name.startswith(".")), key=lambda item: item.name)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HarnessError(f"{parent}: cannot be read ({error.strerror}); a folder of records belongs here") from None
    for item in found:
        if not item.is_dir(follow_symlinks=False):
            raise HarnessError(f"{item.path}: only folders belong here; move this file elsewhere")
    return [parent / item.name for item in found]


def _read(folder: Path) -> Record:
    path = folder / RECORD
    record = parse_record(_bytes(path, MAX_RECORD_BYTES), str(path))
    if record.id != f"{folder.parent.name}/{folder.name}":
        raise HarnessError(
            f"{path}: name, fingerprint and seed say {record.id!r}, but it lies in {folder.parent.name}/{folder.name}; "
            "move the folder or correct the fields"
        )
    return record


def _current(raw: bytes) -> Record | None:
    """A valid record of this schema, parsed once; None for anything else, which is then looked at with care.

    The reader of JSON takes NaN, which JSON does not have.
    """
    # A single byte is looked for many times as fast, and capital letters are rare.
    if (b"N" in raw and b"NaN" in raw) or (b"I" in raw and b"Infinity" in raw):
        return None
    try:
        record = Record.model_validate_json(raw, strict=True)
    except ValidationError:
        return None
    return record if record.schema_version == SCHEMA_VERSION and "schema_version" in record.model_fields_set else None


def _bytes(path: Path, limit: int) -> bytes:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise HarnessError(f"{path}: {size:,} bytes is too large (at most {limit:,})")
            return file.readall()
    except FileNotFoundError:
        raise HarnessError(f"{path}: no such file; restore it, or submit the entry again") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise HarnessError(f"{path}: is a link; put the file itself there") from None
        raise HarnessError(f"{path}: cannot be read ({error.strerror})") from None
