"""Where a split's images lie: a folder or tar shards, with the names that are there."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from harness.cards import DatasetCard
from harness.data.checking.files import Job
from harness.data.checking.findings import Findings
from harness.data.checking.patterns import files_of
from harness.data.images import EXTENSIONS, walk_images

Members = dict[str, tuple[int, int]]  # name: where its bytes begin in the shard, and how many


class ImageFiles:
    """The image files of a split, for looking up listed ones and finding unlisted ones.

    Args:
        card: The data set.
        split: Name of the split.
        found: Where it is told if the folder or a shard is missing or not readable.

    Attributes:
        folder: What names are relative to; with shards, the folder of the shards.
        there: Whether there is a folder or a shard.
        files: Names of the images, relative to the folder or as in the shards, with ``/``.
    """

    def __init__(self, card: DatasetCard, split: str, found: Findings) -> None:
        self.folder = card.path(split, "images")
        self._shard_of: dict[str, Path] = {}
        self._members: dict[Path, Members] = {}
        self._listed: set[str] = set()
        self.sharded = card.splits[split].images.endswith(".tar")  # type: ignore[index]
        if self.sharded:
            self._open_shards(card, split, found)
            self.there = bool(self._members)
            self.files: Iterable[str] = self._shard_of.keys()
            return
        self.there = self.folder.is_dir()
        self.files = set(walk_images(self.folder)) if self.there else set()
        if not self.there:
            message = f"splits.{split}.images is not a folder; {card.how_to_get}"
            found.add("file-missing", split, self.folder, "", message)

    def _open_shards(self, card: DatasetCard, split: str, found: Findings) -> None:
        self.folder = self.folder.parent
        paths, missing = files_of(card, split)
        for path in missing:
            message = f"splits.{split}.images names this shard and it does not exist; {card.how_to_get}"
            found.add("file-missing", split, path, "", message)
        for path in paths:
            status = path.stat()
            self._members[path], problem = _members(path, status.st_size, status.st_mtime_ns)
            if problem:
                found.add("file-unreadable", split, path, "", f"not a whole tar file ({problem}); fetch it again")
            for name in self._members[path]:
                if name in self._shard_of:
                    message = f"{self._shard_of[name].name} holds an image of this name, too; remove one"
                    found.add("duplicate-id", split, self._inside(path, name), name, message)
                else:
                    self._shard_of[name] = path

    def has(self, name: str) -> bool:
        """Whether a listed image exists."""
        self._listed.add(name)
        return name in self.files or (not self.sharded and (self.folder / name).is_file())

    def unlisted(self) -> set[str]:
        """Images that `has` was not asked for."""
        return set(self.files) - self._listed

    def top_folders(self) -> set[str]:
        """Names of the folders at the top; hidden ones are left out."""
        if self.sharded:
            return {name.split("/", 1)[0] for name in self.files if "/" in name}
        return (
            {e.name for e in self.folder.iterdir() if e.is_dir() and not e.name.startswith(".")}
            if self.there
            else set()
        )

    def path(self, name: str) -> Path:
        """How findings call an image: its path, or ``shard.tar:name``."""
        shard = self._shard_of.get(name)
        return self.folder / name if shard is None else self._inside(shard, name)

    def job(self, name: str) -> Job:
        """What is to be read."""
        shard = self._shard_of.get(name)
        if shard is None:
            return Job(self.folder / name, "image")
        return Job(shard, "image", name, *self._members[shard][name])

    @staticmethod
    def _inside(shard: Path, name: str) -> Path:
        return shard.parent / f"{shard.name}:{name}"


@lru_cache(maxsize=4096)  # the training split is opened again for the classes of the others
def _members(path: Path, size: int, mtime_ns: int) -> tuple[Members, str]:
    """The images of a shard as far as it can be read, and what was wrong with it."""
    members: Members = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                hidden = member.name.rpartition("/")[2].startswith(".")
                if member.isreg() and not hidden and member.name.lower().endswith(EXTENSIONS):
                    if member.offset_data + member.size > size:
                        return members, f"it ends within {member.name[:80]}"
                    members[member.name.removeprefix("./")] = member.offset_data, member.size
            if archive.offset >= size:
                return members, "it ends without an end mark"
    except (tarfile.TarError, OSError) as error:
        return members, str(error)
    return members, ""
