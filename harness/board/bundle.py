"""An entry as one zip file, to be handed to somebody else's board: written to the same bytes, read without belief.

Layout: ``bundle.json`` with the layout's version and the records' ids, and for each record, under ``records/<id>/``,
``record.json``, ``statistics.npz``, ``submission.yaml`` if it was trained here, and perhaps ``predictions/``.
"""

from __future__ import annotations

import io
import re
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml

from harness.atomic import json_bytes, write_bytes
from harness.board.packing import EPOCH, predictions_hash
from harness.board.records import MAX_RECORD_BYTES, RECORD, STATISTICS, Record, read_statistics
from harness.errors import HarnessError
from harness.evaluation.files import require_file

BUNDLE_VERSION = 1
MANIFEST, SUBMISSION, PREDICTIONS = "bundle.json", "submission.yaml", "predictions"
MAX_RECORDS = 1000
MAX_MEMBERS = 50_000
MAX_BUNDLE_BYTES = 2_000_000_000  # of the file itself
MAX_UNPACKED_BYTES = 4_000_000_000  # of all members
MAX_STATISTICS_BYTES = 1_000_000_000  # of the arrays of a record, unpacked
MAX_RATIO = 200  # of members of more than a megabyte: text packs 10 times, a bomb 1,000 times
MAX_SMALL_BYTES = 1_000_000  # of the manifest and of submission.yaml
PREDICTION_SUFFIXES = ("", ".json", ".npz", ".csv", ".parquet", ".zip")

_MEMBER = re.compile(r"records/([^/]+/[^/]+)/(record\.json|statistics\.npz|submission\.yaml|predictions/.+)")


@dataclass
class Packed:
    """The members of one record.

    Attributes:
        id: Its folder in the bundle.
        predictions: For each card the members that hold its predictions, by path below the card: ``""`` for one file.
    """

    id: str
    predictions: dict[str, dict[str, str]] = field(default_factory=dict)


class Bundle:
    """An open bundle, all of whose member names, sizes and types have been checked. See `open_bundle`."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path, self._archive = path, archive
        self._names = {info.filename: info for info in _checked(path, archive)}
        self.records = self._layout()

    def read(self, packed: Packed, name: str) -> bytes | None:
        """A member of a record, whole; None if there is none of this name.

        Raises:
            HarnessError: It is damaged.
        """
        member = f"records/{packed.id}/{name}"
        return self._bytes(member) if member in self._names else None

    def place(self, packed: Packed, member: str) -> str:
        """What a member is called in messages."""
        return f"{self.path}: records/{packed.id}/{member}"

    def extract(self, packed: Packed, card: str, folder: Path) -> Path:
        """Write the predictions of a card into an empty folder of ours.

        Returns:
            The file, or the folder where the predictions are several files.
        """
        members = packed.predictions[card]
        for below, member in members.items():
            target = folder / card / below if below else folder / Path(member).name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self._bytes(member))
        return folder / Path(members[""]).name if "" in members else folder / card

    def _bytes(self, member: str) -> bytes:
        try:
            return self._archive.read(self._names[member])
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
            raise HarnessError(f"{self.path}: {member}: damaged ({error}); make the bundle again") from None

    def _layout(self) -> list[Packed]:
        """The records that the manifest names, with nothing missing and nothing left over."""
        if MANIFEST not in self._names:
            raise HarnessError(f"{self.path}: {MANIFEST} is missing; make bundles with harness leaderboard bundle")
        ids = self._manifest()
        records = {identity: Packed(identity) for identity in ids}
        for name in self._names:
            match = _MEMBER.fullmatch(name)
            if name == MANIFEST:
                continue
            if match is None or match[1] not in records:
                raise HarnessError(f"{self.path}: {name!r} does not belong into a bundle; make it again")
            if match[2].startswith(f"{PREDICTIONS}/"):
                card, _, below = match[2].removeprefix(f"{PREDICTIONS}/").partition("/")
                if not below:  # one file: its suffix tells the format
                    card = _without_suffix(card)
                known = records[match[1]].predictions.setdefault(card, {})
                known[below] = name
                if "" in known and len(known) > 1:
                    raise HarnessError(f"{self.path}: {name!r}: {card} has predictions twice; make the bundle again")
        for known in (known for record in records.values() for known in record.predictions.values()):
            for name in sorted({below[:n] for below in known for n, letter in enumerate(below) if letter == "/"}):
                if name in known:
                    raise HarnessError(f"{self.path}: {known[name]!r}: is a file and a folder; make the bundle again")
        for identity in ids:
            for name in (RECORD, STATISTICS):
                if f"records/{identity}/{name}" not in self._names:
                    raise HarnessError(f"{self.path}: records/{identity}/{name} is missing; make the bundle again")
        return list(records.values())

    def _manifest(self) -> list[str]:
        place = f"{self.path}: {MANIFEST}"
        try:
            document = orjson.loads(self._bytes(MANIFEST))
        except orjson.JSONDecodeError as error:
            raise HarnessError(f"{place}: not valid JSON ({error}); make the bundle again") from None
        version = document.get("bundle_version") if isinstance(document, dict) else None
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise HarnessError(f"{place}: bundle_version: must be a whole number from 1, got {version!r}")
        if version > BUNDLE_VERSION:
            raise HarnessError(
                f"{place}: bundle_version: {version} is newer than this harness reads ({BUNDLE_VERSION}); "
                "upgrade with pip install --upgrade placeholder-harness"
            )
        ids = document.get("records")
        if set(document) != {"bundle_version", "records"} or not isinstance(ids, list) or not ids:
            raise HarnessError(f"{place}: must hold bundle_version and records, a list of ids, and nothing else")
        if len(ids) > MAX_RECORDS or any(not isinstance(one, str) for one in ids) or len(set(ids)) < len(ids):
            raise HarnessError(f"{place}: records: must name at most {MAX_RECORDS:,} ids, each once")
        return ids


def write_bundle(path: Path, board: Path, records: Sequence[Record], predictions: Sequence[Path] = ()) -> Path:
    """Pack stored records into a zip file whose bytes depend on them only.

    Args:
        path: The file to write.
        board: The board that they are stored on.
        records: Which ones.
        predictions: Where the predictions lie that they were scored from, so that others can score them again: files
            or folders of predictions, folders of such, or a folder of runs. None packs records alone.

    Returns:
        `path`.

    Raises:
        HarnessError: Statistics are missing or damaged, or predictions are asked for and not found.
    """
    members: dict[str, bytes] = {
        MANIFEST: json_bytes({"bundle_version": BUNDLE_VERSION, "records": sorted(record.id for record in records)})
    }
    for record in records:
        folder = f"records/{record.id}"
        read_statistics(board, record)  # nothing travels that the other side would refuse
        members[f"{folder}/{RECORD}"] = json_bytes(record.model_dump(mode="json"))
        members[f"{folder}/{STATISTICS}"] = (board / "records" / record.id / STATISTICS).read_bytes()
        if record.submission is not None:
            members[f"{folder}/{SUBMISSION}"] = submission_yaml(record.submission)
        if predictions:
            members |= {f"{folder}/{PREDICTIONS}/{k}": v for k, v in _predictions(record, predictions).items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, date_time=EPOCH)
            info.compress_type = zipfile.ZIP_STORED if name.endswith(".npz") else zipfile.ZIP_DEFLATED
            info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, members[name])
        _checked(path, archive)  # what others would refuse is told to who can mend it
    write_bytes(path, buffer.getvalue())
    return path


@contextmanager
def open_bundle(path: Path) -> Iterator[Bundle]:
    """Open a bundle by a stranger. Nothing is unpacked, followed or run; contents are checked by `admit`.

    Raises:
        HarnessError: It is no zip file, too large, made to unpack to too much, or holds links, encrypted or unexpected
            members, or names that lead elsewhere.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BUNDLE_BYTES:
            raise HarnessError(f"{path}: {size:,} bytes is too large for a bundle (at most {MAX_BUNDLE_BYTES:,})")
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise HarnessError(f"{path}: is no bundle that can be read ({reason}); make it again") from None
    with archive:
        yield Bundle(path, archive)


def submission_yaml(submission: Mapping[str, Any]) -> bytes:
    """A record's submission as the YAML file beside it in a bundle; keys are sorted, as in what is stored."""
    text: str = yaml.safe_dump(dict(submission), sort_keys=True, allow_unicode=True)
    return text.encode()


def _checked(path: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise HarnessError(f"{path}: {len(members):,} members are too many (at most {MAX_MEMBERS:,})")
    total = sum(member.file_size for member in members)
    if total > MAX_UNPACKED_BYTES:
        raise HarnessError(f"{path}: unpacks to {total:,} bytes, which is too much (at most {MAX_UNPACKED_BYTES:,})")
    seen: set[str] = set()
    for member in members:
        name = member.filename
        problem = _name_problem(member) or _member_problem(member)
        folded = unicodedata.normalize("NFC", name).casefold()
        if not problem and folded in seen:
            problem = "is there twice (upper and lower case aside)"
        if problem:
            raise HarnessError(f"{path}: {name!r}: {problem}; make the bundle with harness leaderboard bundle")
        seen.add(folded)
    return members


def _name_problem(member: zipfile.ZipInfo) -> str:
    name = member.filename
    parts = name.split("/")
    if name != member.orig_filename or any(unicodedata.category(c)[0] == "C" for c in name):
        return "its name holds control characters"
    if any(part in ("", ".", "..") for part in parts) or any(c in name for c in "\\:"):
        return "its name leads out of the bundle, or is a folder's"
    if len(parts) > 12 or any(len(part.encode()) > 255 for part in parts):
        return "its name is too long"
    return ""


def _member_problem(member: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "is a link or another special file"
    if member.flag_bits & 0x1:
        return "is encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is packed by method {member.compress_type}, not stored or deflated"
    base = member.filename.rpartition("/")[2]
    limit = {RECORD: MAX_RECORD_BYTES, SUBMISSION: MAX_SMALL_BYTES, MANIFEST: MAX_SMALL_BYTES}.get(base)
    if limit is not None and f"/{PREDICTIONS}/" not in member.filename and member.file_size > limit:
        return f"{member.file_size:,} bytes is too large (at most {limit:,})"
    if member.file_size > max(1_000_000, MAX_RATIO * member.compress_size):
        return f"unpacks to {member.file_size:,} bytes from {member.compress_size:,}, which is no honest file"
    return ""


def _predictions(record: Record, places: Sequence[Path]) -> dict[str, bytes]:
    """Members below ``predictions/``: for each task what the record's hash names."""
    candidates = [path for place in places for path in _candidates(place, record)]
    hashes = {path: predictions_hash(path) for path in candidates}
    found: dict[str, bytes] = {}
    for card, task in record.tasks.items():
        match = next((path for path in candidates if hashes[path] == task.predictions), None)
        if match is None:
            raise HarnessError(
                f"{record.id}: predictions of {card} are not in {', '.join(map(str, places))}, or are others than were "
                "scored; name where they lie, or leave --predictions out"
            )
        if match.is_dir():
            files = sorted(path for path in match.rglob("*") if path.is_file())
            found |= {f"{card}/{path.relative_to(match).as_posix()}": path.read_bytes() for path in files}
        else:
            found[f"{card}{match.suffix}"] = match.read_bytes()
    return found


def _candidates(place: Path, record: Record) -> list[Path]:
    run = place / f"{record.fingerprint}-seed{record.seed}" / PREDICTIONS
    try:
        if run.is_dir():
            return _readable(run)
        if not place.exists():
            raise HarnessError(f"--predictions {place}: no such file or folder")
        require_file(place)
        return [place, *_readable(place)] if place.is_dir() else [place]
    except OSError as error:
        raise HarnessError(f"--predictions {place}: cannot be read ({error.strerror})") from None


def _readable(folder: Path) -> list[Path]:
    """Files and folders; reading a pipe would never end."""
    return sorted(path for path in folder.iterdir() if path.is_file() or path.is_dir())


def _without_suffix(name: str) -> str:
    return next((name.removesuffix(s) for s in PREDICTION_SUFFIXES if s and name.endswith(s)), name)
