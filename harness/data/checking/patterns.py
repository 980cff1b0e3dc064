"""The files that a split's ``images`` names where it is a pattern: ``train-{0000..0007}.tar``, ``data_batch_*.bin``."""

from __future__ import annotations

import re
from pathlib import Path

from harness.cards import DatasetCard

_RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
MAX_FILES = 100_000


def files_of(card: DatasetCard, split: str) -> tuple[list[Path], list[Path]]:
    """The files of a pattern.

    Args:
        card: The data set.
        split: Name of the split, whose ``images`` is a path with ``{first..last}`` ranges (zero-padded as `first` is)
            and ``*`` wildcards, or the URL of shards, which are fetched into the cache folder.

    Returns:
        The files that exist, and those that are named and do not exist.

    Raises:
        HarnessError: A shard cannot be fetched.
    """
    pattern = card.splits[split].images  # type: ignore[index]
    if "://" in pattern:
        from harness.data.shards import shard_files  # brings the library that downloads

        return shard_files(card, split), []
    there: list[Path] = []
    missing: list[Path] = []
    for name in _expanded(pattern):
        path = card.directory / name
        files = [p for p in sorted(card.directory.glob(name)) if p.is_file()] if "*" in name else [path]
        there += [p for p in files if p.is_file()]
        if not files or not files[0].is_file():
            missing.append(path)
    return there, missing


def _expanded(pattern: str) -> list[str]:
    match = _RANGE.search(pattern)
    if match is None:
        return [pattern]
    first, last = match.groups()
    numbers = range(int(first), min(int(last), int(first) + MAX_FILES) + 1)
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [rest for number in numbers for rest in _expanded(f"{before}{number:0{len(first)}d}{after}")]
