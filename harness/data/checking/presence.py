"""Which data sets are on this machine: ``harness data ls``. Cheap: folders are listed, nothing is read."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from harness.cards import DatasetCard, Split, cache_directory, card_paths, load_card
from harness.data.checking.patterns import files_of
from harness.data.cifar import LABEL_BYTES, PIXEL_BYTES
from harness.data.images import EXTENSIONS
from harness.errors import HarnessError

_ORDER = ("yes", "partly", "no")
_FILES = ("annotations", "labels", "questions", "names", "synsets")


def data_sets(name_filter: str = "") -> list[dict[str, Any]]:
    """Every card that can be named, with what of it is present.

    Args:
        name_filter: Only cards whose name contains this text.

    Returns:
        One row per card, present ones first: ``name, task, adapter, present`` (yes, partly or no), ``splits`` (each
        with ``present``, ``images`` found, ``size`` stated and ``missing`` files), ``license, path, about``. A card
        that is not valid has its error as ``about``.
    """
    rows = [_row(name) for name in sorted(card_paths()) if name_filter in name]
    return sorted(rows, key=lambda row: (_ORDER.index(row["present"]), row["name"]))


def _row(name: str) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "task": "", "adapter": "", "present": "no", "splits": {}, "license": ""}
    try:
        card = load_card(name)
    except HarnessError as error:  # a broken card of the user's must not hide the others
        return row | {"path": "", "about": str(error)}
    row |= {"task": card.task, "adapter": card.adapter, "license": card.license, "path": card.root, "about": card.title}
    try:
        row["path"] = str(card.directory)
    except HarnessError:  # its folder is named by a variable that is not set
        return row | {"splits": {split: _absent(entry) for split, entry in card.splits.items()}}
    try:
        row["splits"] = {split: _split(card, split, entry) for split, entry in card.splits.items()}
    except OSError as error:
        return row | {"about": f"{error.filename}: cannot be read ({error.strerror}); check the permissions"}
    states = Counter(split["present"] for split in row["splits"].values())
    whole = states["yes"] == len(row["splits"])
    return row | {"present": "yes" if whole else "no" if states["no"] == len(row["splits"]) else "partly"}


def _absent(entry: Split) -> dict[str, Any]:
    return {"present": "no", "images": 0, "size": entry.size, "missing": [entry.images]}


def _split(card: DatasetCard, split: str, entry: Split) -> dict[str, Any]:
    missing = [value for key in _FILES if (value := getattr(entry, key)) and not (card.directory / value).exists()]
    images, absent = _images(card, split, entry)
    missing = absent + missing
    # For VQA the stated size is the number of questions, which only reading the file would tell.
    short = card.task != "vqa" and entry.size is not None and images is not None and images < entry.size
    present = "no" if images == 0 else "partly" if missing or short else "yes"
    return {"present": present, "images": images, "size": entry.size, "missing": missing}


def _images(card: DatasetCard, split: str, entry: Split) -> tuple[int | None, list[str]]:
    """Number of images, or None if only reading would tell; and what of the images is missing."""
    folder = card.path(split, "images")
    if folder.is_dir():
        names = None if entry.names is None else card.directory / entry.names
        # In a folder that several splits share, the list tells which images are this split's.
        return (_lines(names) if names is not None and names.is_file() else _count(folder, entry)), []
    if "://" in entry.images:  # shards that are fetched on first use
        fetched = cache_directory() / "shards" / card.name
        return (None, []) if fetched.is_dir() and any(fetched.iterdir()) else (0, [entry.images])
    files, absent = files_of(card, split)
    missing = [str(path.relative_to(card.directory)) for path in absent]
    if card.adapter == "cifar":
        return sum(_records(path.stat().st_size) for path in files), missing
    return (None if files else 0), missing


def _records(size: int) -> int:
    """Images in a CIFAR file, whose records have the length of CIFAR-10's or CIFAR-100's."""
    lengths = [PIXEL_BYTES + label_bytes for label_bytes in LABEL_BYTES.values()]
    return next((size // length for length in lengths if size % length == 0), 0)


def _count(folder: Path, entry: Split) -> int:
    """Image files below a folder, without a look at any of them."""
    count = 0
    pending = [os.fspath(folder)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for item in entries:
                if item.name.startswith("."):
                    continue
                if item.name.lower().endswith(EXTENSIONS):
                    count += item.name.startswith(entry.image_prefix)
                elif item.is_dir(follow_symlinks=False):
                    pending.append(item.path)
    return count


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(bool(line.strip()) and not line.startswith(b"#") for line in file)
