"""The downloaded archives of a data set, where they still lie beside the data."""

from __future__ import annotations

import hashlib
from pathlib import Path

from harness.cards import Archive, DatasetCard
from harness.data.checking.files import Facts, Job
from harness.data.checking.findings import Findings
from harness.data.checking.journal import Journal
from harness.progress import Reporter

BLOCK = 8 << 20  # bytes


def check_archives(card: DatasetCard, found: Findings, journal: Journal, reporter: Reporter) -> list[str]:
    """Compare size and MD5 of the archives that are there with what the card states; the names of those."""
    there = [archive for archive in card.archives if (card.directory / archive.file).is_file()]
    for archive in there:
        _check(card.directory / archive.file, archive, found, journal, reporter)
    return [archive.file for archive in there]


def _check(path: Path, archive: Archive, found: Findings, journal: Journal, reporter: Reporter) -> None:
    size = path.stat().st_size
    if archive.bytes is not None and size != archive.bytes:
        message = f"has {size:,} bytes, and its publisher states {archive.bytes:,}; fetch it again"
        found.add("archive-checksum", "", path, archive.file, message)
        return
    try:
        facts = journal.look_up(Job(path, "archive")) or _read(path, journal, reporter)
    except OSError as error:
        found.add("file-unreadable", "", path, archive.file, f"cannot be read ({error.strerror}); fetch it again")
        return
    if facts.digest != archive.md5:
        message = f"has MD5 {facts.digest}, and its publisher states {archive.md5}; fetch it again"
        found.add("archive-checksum", "", path, archive.file, message)


def _read(path: Path, journal: Journal, reporter: Reporter) -> Facts:
    status = path.stat()
    digest = hashlib.md5(usedforsecurity=False)  # what publishers state
    with path.open("rb") as file, reporter.bar(f"MD5 of {path.name}, MB", max(1, status.st_size // 10**6)) as bar:
        done = 0
        while block := file.read(BLOCK):
            digest.update(block)
            before, done = done // 10**6, done + len(block)
            bar.advance(done // 10**6 - before)
    facts = Facts("archive", status.st_size, status.st_mtime_ns, digest.hexdigest())
    journal.append([(Job(path, "archive"), facts)])
    return facts
