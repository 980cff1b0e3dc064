"""What was read from files before, so that an interrupted check goes on and a repeated one reads what changed.

One JSON line per file in the cache folder. Lines are only ever appended, each append in one write that begins with a
line break: a torn line of a killed process ends there, and two processes that check at once do not mix lines. Of
several lines about one file the last counts.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import orjson

from harness.cards import cache_directory
from harness.data.checking.files import Facts, Job, Kind
from harness.data.checking.findings import text
from harness.errors import HarnessError


class Journal:
    """Facts about the files below one folder.

    Only a line's place is kept in memory, not its content: ImageNet has 1.3 million.

    Args:
        root: The folder.
        fresh: Forget what was read before.

    Raises:
        HarnessError: The cache folder cannot be written.
    """

    def __init__(self, root: Path, fresh: bool = False) -> None:
        key = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
        self.path = cache_directory() / "checks" / f"{key}.jsonl"
        self._prefix = f"{root}{os.sep}"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if fresh:
                self.path.unlink(missing_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise self._unwritable(error) from None
        size = os.fstat(self._descriptor).st_size
        self._lines = mmap.mmap(self._descriptor, size, prot=mmap.PROT_READ) if size else b""
        # By hash: two files with the same one merely cost reading one of them again.
        self._places: dict[int, int] = {}
        self._index()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        if isinstance(self._lines, mmap.mmap):
            self._lines.close()
        os.close(self._descriptor)

    def _index(self) -> None:
        place = 0
        while (end := self._lines.find(b"\n", place)) >= 0 or place < len(self._lines):
            end = len(self._lines) if end < 0 else end
            entry = _entry(self._lines[place:end])
            if entry is not None:
                self._places[hash((entry[1].kind, entry[0]))] = place
            place = end + 1

    def look_up(self, job: Job) -> Facts | None:
        """What is known about a file that has not changed since."""
        name = self._name(job)
        place = self._places.get(hash((job.kind, name)))
        if place is None:
            return None
        end = self._lines.find(b"\n", place)
        entry = _entry(self._lines[place : end if end >= 0 else len(self._lines)])
        try:
            status = job.path.stat()
        except OSError:
            return None
        if entry is None or entry[0] != name or entry[1].kind != job.kind:
            return None
        facts = entry[1]
        return facts if (facts.size, facts.mtime_ns) == (status.st_size, status.st_mtime_ns) else None

    def append(self, read: Iterable[tuple[Job, Facts]]) -> None:
        """Note what was read from some files. Raises HarnessError if the disk is full."""
        lines = [orjson.dumps({"path": self._name(job), **asdict(facts)}) for job, facts in read if facts.size >= 0]
        data = b"\n" + b"\n".join(lines) + b"\n"
        try:
            if os.write(self._descriptor, data) < len(data):
                raise OSError(28, "No space left on device")
        except OSError as error:
            raise self._unwritable(error) from None

    def _name(self, job: Job) -> str:
        name = str(job.path).removeprefix(self._prefix)
        return text(f"{name}:{job.member}" if job.member else name)

    def _unwritable(self, error: OSError) -> HarnessError:
        return HarnessError(
            f"{self.path}: cannot be written ({error.strerror}); free some space or set HARNESS_CACHE to another folder"
        )


def _entry(line: bytes) -> tuple[str, Facts] | None:
    """One line, or None if it is torn or of another version."""
    if not line:
        return None
    try:
        fields = orjson.loads(line)
        path = fields.pop("path")
        facts = Facts(**{**fields, "ids": tuple(fields["ids"])})
    except (orjson.JSONDecodeError, TypeError, KeyError, AttributeError):
        return None
    return (path, facts) if isinstance(path, str) and facts.kind in get_args(Kind) else None
