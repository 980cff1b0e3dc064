"""The folder of records: written whole or not at all, read strictly, and the only state that a board has."""

from __future__ import annotations

import hashlib
import io
import math
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import ValidationError

from harness.atomic import directory, json_bytes, locked
from harness.board.schema import SCHEMA_VERSION, Cost, Protocol, Provenance, Record, TaskResult, migrate
from harness.documents import describe
from harness.errors import HarnessError, suggestion
from harness.evaluation import result_class
from harness.evaluation.metric import Result

__all__ = [
    "SCHEMA_VERSION",
    "Cost",
    "Protocol",
    "Provenance",
    "Record",
    "TaskResult",
    "find_entry",
    "hash_arrays",
    "migrate",
    "read_record",
    "read_records",
    "read_statistics",
    "write_record",
]

Arrays = Mapping[str, NDArray[Any]]

RECORD, STATISTICS = "record.json", "statistics.npz"
MAX_RECORD_BYTES = 20_000_000
MAX_STATISTICS_BYTES = 4_000_000_000  # unpacked, of all arrays of a record
MAX_ARRAYS = 1000

_FOLDER = re.compile(r"[0-9a-f]{12}-seed[0-9]{1,19}")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first time that a zip file can name


def hash_arrays(arrays: Arrays) -> str:
    """SHA-256 over named arrays: sorted names, dtypes, shapes and bytes (little-endian, row-major).

    Args:
        arrays: Array by name, any shape, no objects.

    Returns:
        64 hex digits, the same on every machine.
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = _portable(arrays[name])
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def write_record(
    board: Path,
    record: Record,
    statistics: Mapping[str, Arrays],
    replace: bool = False,
    gallery: Mapping[str, bytes] | None = None,
) -> Path:
    """Store a record, its statistics and its pictures; all files appear together or not at all.

    A record with the same id that differs in cost and provenance only (a rerun) gives way; one with other numbers
    does so only when asked.

    Args:
        board: The board's folder; ``records/`` lies in it.
        record: What to store.
        statistics: For each dataset card of the record, ``Result.statistics``.
        replace: Whether a record of the same id with other numbers gives way.
        gallery: Further files by name, from `harness.gallery.make_gallery`.

    Returns:
        The record's folder.

    Raises:
        HarnessError: The statistics are not those that the record names, or a record of this id with other numbers
            exists and `replace` is false, or the disk is full.
    """
    folder = board / "records" / record.id
    if set(statistics) != set(record.tasks):
        raise HarnessError(f"{folder}: statistics of {sorted(statistics)} given for tasks {sorted(record.tasks)}")
    for card, arrays in statistics.items():
        if hash_arrays(arrays) != record.tasks[card].statistics:
            raise HarnessError(f"{folder}: tasks.{card}.statistics: is not the hash of the arrays given")
    document = json_bytes(record.model_dump(mode="json"))
    archive = _pack({f"{card}/{name}": array for card, arrays in statistics.items() for name, array in arrays.items()})

    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(board / "records"):  # so that nobody stores other numbers between the look and the step
        if folder.exists() and not replace:
            differing = _differing(_read(folder), record)
            if differing:
                raise HarnessError(
                    f"{folder}: a record of this id exists with another {differing}; the same submission, seed and "
                    "machine should give the same numbers: find out why, or replace it explicitly"
                )
        with directory(folder, replace=True) as temporary:
            (temporary / RECORD).write_bytes(document)
            (temporary / STATISTICS).write_bytes(archive)
            for name, content in (gallery or {}).items():
                (temporary / name).write_bytes(content)
    return folder


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


def read_statistics(board: Path, record: Record) -> dict[str, Result]:
    """The per-image statistics of a record, checked against its hashes.

    Args:
        board: The board's folder.
        record: One of its records.

    Returns:
        Result by dataset card.

    Raises:
        HarnessError: The file is missing, damaged, too large, holds objects or other arrays than the record names, or
            was made with another version of a metric.
    """
    path = board / "records" / record.id / STATISTICS
    arrays: dict[str, dict[str, NDArray[Any]]] = {card: {} for card in record.tasks}
    for key, array in _unpack(path).items():
        card, _, name = key.partition("/")
        if card not in arrays or not name:
            raise HarnessError(f"{path}: {key!r} belongs to no task of the record; submit the entry again")
        arrays[card][name] = array
    results = {}
    for card, task in record.tasks.items():
        if hash_arrays(arrays[card]) != task.statistics:
            raise HarnessError(f"{path}: the arrays of {card} are not those that the record names; submit it again")
        kind = result_class(task.protocol.metric)
        if kind.version != task.protocol.metric_version:
            raise HarnessError(
                f"{path}: {card} was scored with {kind.metric} version {task.protocol.metric_version}, this harness "
                f"has version {kind.version}; score its predictions again"
            )
        try:
            results[card] = kind.from_statistics(arrays[card])
        except HarnessError as error:
            raise HarnessError(f"{path}: {card}: {error}") from None
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


def _differing(old: Record, new: Record) -> str:
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
    if not parent.is_dir():
        return []
    found = sorted(path for path in parent.iterdir() if not path.name.startswith("."))
    for path in found:
        if path.is_symlink() or not path.is_dir():
            raise HarnessError(f"{path}: only folders belong here; move this file elsewhere")
    return found


def _read(folder: Path) -> Record:
    path = folder / RECORD
    raw = _bytes(path, MAX_RECORD_BYTES)
    record = _current(raw) or _migrated(raw, path)
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
    if b"NaN" in raw or b"Infinity" in raw:
        return None
    try:
        record = Record.model_validate_json(raw, strict=True)
    except ValidationError:
        return None
    return record if record.schema_version == SCHEMA_VERSION and "schema_version" in record.model_fields_set else None


def _migrated(raw: bytes, path: Path) -> Record:
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise HarnessError(f"{path}: not valid JSON ({error}); restore the file, or submit the entry again") from None
    if not isinstance(document, dict):
        raise HarnessError(f"{path}: expected a JSON object; restore the file, or submit the entry again")
    try:
        migrated = migrate(document, str(path))
        return Record.model_validate_json(orjson.dumps(migrated), strict=True)
    except ValidationError as error:
        raise HarnessError(describe(error, Record, str(path))) from None


def _bytes(path: Path, limit: int) -> bytes:
    if path.is_symlink():
        raise HarnessError(f"{path}: is a link; put the file itself there")
    try:
        size = path.stat().st_size
        if size > limit:
            raise HarnessError(f"{path}: {size:,} bytes is too large (at most {limit:,})")
        return path.read_bytes()
    except FileNotFoundError:
        raise HarnessError(f"{path}: no such file; restore it, or submit the entry again") from None
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({error.strerror})") from None


def _portable(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.hasobject:
        raise HarnessError("statistics: arrays of Python objects cannot be stored; use numbers or fixed-width text")
    little = array.dtype.newbyteorder("<") if array.dtype.byteorder in "=>" else array.dtype
    return np.asarray(array, dtype=little, order="C")


def _pack(arrays: Arrays) -> bytes:
    """An .npz whose bytes depend on the arrays only: sorted names, no times, no file modes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(arrays):
            member = zipfile.ZipInfo(f"{name}.npy", date_time=_EPOCH)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.create_system = 3
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, _portable(arrays[name]), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _unpack(path: Path) -> dict[str, NDArray[Any]]:
    """Read an .npz by a stranger: no objects, and no more memory than its members say and the limit allows."""
    raw = _bytes(path, MAX_STATISTICS_BYTES)
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if len(members) > MAX_ARRAYS or total > MAX_STATISTICS_BYTES:
                raise HarnessError(
                    f"{path}: {len(members):,} arrays of {total:,} bytes are too many "
                    f"(at most {MAX_ARRAYS:,} of {MAX_STATISTICS_BYTES:,})"
                )
            return {member.filename.removesuffix(".npy"): _array(archive.read(member)) for member in members}
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise HarnessError(f"{path}: damaged ({error}); restore the file, or submit the entry again") from None


def _array(raw: bytes) -> NDArray[Any]:
    """One .npy from bytes. The header is held against the size first: numpy allocates what a header claims."""
    stream = io.BytesIO(raw)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"array format {version} is not (1, 0)")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject or fortran:
        raise ValueError("an array holds objects or is column-major")
    body = raw[stream.tell() :]
    if math.prod(shape) * dtype.itemsize != len(body):
        raise ValueError(f"an array of shape {shape} and type {dtype} cannot have {len(body):,} bytes")
    return np.frombuffer(body, dtype=dtype).reshape(shape).copy()
