"""The embedded suite: small drawn scenes on which all four tasks can be trained within minutes, without a download.

Every scene carries a class, boxes, a label map and questions, in the official layouts of ImageNet, COCO, Cityscapes and
VQA v2. It validates code and protocol; it says nothing about natural images.

Rules of the scenes (64 x 64 pixels): 1 to 5 objects of 8 shapes and 6 colours, wholly inside the image. The class is
the shape of the largest object, which shows at least 1.6 times as many pixels as the next; classes are balanced. At
least half of every object is visible. Boxes and areas are of the *visible* pixels, as in COCO. In the label map, pixels
that an outline runs through are void.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from harness import atomic
from harness.cards import cache_directory
from harness.data.shapes.layouts import MAX_SCENES, SPLITS, SplitWriter
from harness.errors import HarnessError, suggestion

VERSION = 1  # raised whenever a pixel or an annotation changes; the cards' root and version follow
DEFAULT_SIZES: Mapping[str, int] = {"train": 2000, "val": 500, "test": 500}
_MARKER = "shapes.json"


def default_root() -> Path:
    """Where the shipped cards look for the suite."""
    return cache_directory() / f"shapes-v{VERSION}"


def make(
    root: Path,
    sizes: Mapping[str, int] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the suite; `root` appears, or gives way to the new suite, only when everything is written.

    Args:
        root: Folder to write.
        sizes: Scenes per split; splits left out have their default size. A smaller split is the beginning of a
            larger one.
        seed: Seed of the scenes, not negative.
        progress: Called with the number of scenes done and of all scenes.

    Raises:
        HarnessError: `root` holds something else, a size is not usable, or the disk is full.
    """
    wanted = _checked_sizes(sizes or {})
    if seed < 0:
        raise HarnessError(f"shapes: seed: {seed} is negative; give a whole number from 0")
    if root.exists() and not (root.is_dir() and ((root / _MARKER).is_file() or not any(root.iterdir()))):
        raise HarnessError(f"{root}: is not an embedded suite and will not be overwritten; name another folder")
    before = _inode(root)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=atomic.TEMPORARY, dir=root.parent) as staging:
            _write(Path(staging) / "new", wanted, seed, progress)
            # One call for everything: a call per file, as `atomic.directory` makes, takes longer than the drawing.
            os.sync()
            with atomic.locked(root.parent):
                _take_place(Path(staging), root, before)
    except OSError as error:
        raise HarnessError(
            f"{root}: cannot be written ({error.strerror}); free some space or set HARNESS_CACHE"
        ) from None


def _write(folder: Path, sizes: Mapping[str, int], seed: int, progress: Callable[[int, int], None] | None) -> None:
    done = 0
    for split, size in sizes.items():
        writer = SplitWriter(folder, split, seed)
        for index in range(size):
            writer.add(index)
            done += 1
            if progress is not None:
                progress(done, sum(sizes.values()))
        writer.finish()
    marker = {"version": VERSION, "seed": seed, "sizes": sizes, "sha256": annotations_sha256(folder)}
    (folder / _MARKER).write_bytes(atomic.json_bytes(marker))


def _take_place(staging: Path, root: Path, before: int | None) -> None:
    """Move the new suite to its place, unless another process has put the same one there since we began."""
    new, found = staging / "new", _inode(root)
    if found is not None:
        fresh = found != before and is_complete(root)
        if fresh and (root / _MARKER).read_bytes() == (new / _MARKER).read_bytes():
            return
        root.rename(staging / "old")
    new.rename(root)


def _inode(root: Path) -> int | None:
    return root.stat().st_ino if root.exists() else None


def is_complete(root: Path) -> bool:
    """Whether `root` holds a suite of this version.

    The marker is part of the folder that is moved into place as a whole, so its presence says that all files came.
    """
    try:
        marker: Any = orjson.loads((root / _MARKER).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return False
    trees = ("imagenet", "coco", "cityscapes", "vqa")
    return isinstance(marker, dict) and marker.get("version") == VERSION and all((root / t).is_dir() for t in trees)


def ensure(root: Path | None = None, progress: Callable[[int, int], None] | None = None) -> Path:
    """Make the suite of default size unless a suite of this version is there already, of whatever size.

    Args:
        root: Its folder; None means `default_root`.
        progress: See `make`.

    Returns:
        The folder.
    """
    root = default_root() if root is None else root
    if not is_complete(root):
        make(root, progress=progress)
    return root


def annotations_sha256(root: Path) -> str:
    """SHA-256 over everything but the images: class folders, boxes, label maps, questions and answers."""
    digest = hashlib.sha256()
    names = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    for name in sorted(names):
        digest.update(name.encode() + b"\0")
        if name.endswith((".json", "_labelIds.png")) and name != _MARKER:
            digest.update(hashlib.sha256((root / name).read_bytes()).digest())
    return digest.hexdigest()


def _checked_sizes(sizes: Mapping[str, int]) -> dict[str, int]:
    for split, size in sizes.items():
        if split not in SPLITS:
            raise HarnessError(f"shapes: sizes: {split!r} is not a split{suggestion(split, SPLITS)}")
        if not 0 < size < MAX_SCENES:
            raise HarnessError(f"shapes: sizes.{split}: {size} is not usable; give 1 to {MAX_SCENES - 1:,} scenes")
    return {split: sizes.get(split, DEFAULT_SIZES[split]) for split in SPLITS}
