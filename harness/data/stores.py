"""Where a split's images are read from: a folder, or tar shards (WebDataset), by name."""

from __future__ import annotations

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.cards import DatasetCard
from harness.data.images import decode_image, read_bytes, require_images, walk_images
from harness.errors import HarnessError

_RANGE = re.compile(r"\{(\d{1,6})\.\.(\d{1,6})\}")


class ImageStore(ABC):
    """A split's images by name, which is a path relative to the card's image folder, with ``/``.

    Args:
        place: What names are relative to, as errors call it.
        upright: Whether to turn images as their EXIF data say.
    """

    def __init__(self, place: Path | str, upright: bool) -> None:
        self.place = place
        self._upright = upright

    def read(self, name: str) -> NDArray[np.uint8]:
        """Decode one image: uint8 [H, W, 3], RGB. Raises HarnessError naming the file if it cannot be read."""
        return decode_image(self.content(name), self.path(name), self._upright)

    def path(self, name: str) -> str:
        """How an error calls an image."""
        return f"{self.place}/{name}"

    @abstractmethod
    def content(self, name: str) -> bytes:
        """The bytes of an image file. Raises HarnessError if it is not there."""

    @abstractmethod
    def names(self) -> list[str]:
        """All images, sorted."""

    @abstractmethod
    def folders(self) -> list[str]:
        """Names of the folders at the top, sorted; hidden ones are left out."""

    @abstractmethod
    def require(self, names: Iterable[str], source: str) -> None:
        """Check that every image is there; `source` is the file that names them. Raises HarnessError if not."""


class ImageTree(ImageStore):
    """Images in a folder and the folders below it.

    Args:
        folder: The folder.
        upright: Whether to turn images as their EXIF data say.
    """

    def __init__(self, folder: Path, upright: bool) -> None:
        super().__init__(folder, upright)
        self._folder = folder

    def content(self, name: str) -> bytes:
        """The bytes of an image file. Raises HarnessError if it is not there."""
        return read_bytes(f"{self._folder}/{name}")

    def names(self) -> list[str]:
        """All images, sorted."""
        return walk_images(self._folder)

    def folders(self) -> list[str]:
        """Names of the folders at the top, sorted; hidden ones are left out."""
        if not self._folder.is_dir():
            return []
        return sorted(e.name for e in self._folder.iterdir() if e.is_dir() and not e.name.startswith("."))

    def require(self, names: Iterable[str], source: str) -> None:
        """Check that every image is there, with one look into each folder."""
        require_images(self._folder, names, source)


def open_images(card: DatasetCard, split: str) -> ImageStore:
    """Open a split's images.

    Raises:
        HarnessError: The folder or a shard is missing.
    """
    upright = card.exif_orientation == "apply"
    if card.splits[split].images.endswith(".tar"):  # type: ignore[index]
        from harness.data.shards import ImageShards  # the library is needed for shards only

        return ImageShards(card, split, upright)
    return ImageTree(card.require(card.path(split, "images"), "the image folder"), upright)


def image_files(card: DatasetCard, split: str) -> list[Path]:
    """The files that hold many images each (shards, CIFAR's batches) and that a split's ``images`` names.

    Returns:
        One file, the files of a range such as ``train-{000000..000146}.tar`` as counted, or those that match a star, by
        name.

    Raises:
        HarnessError: A file is missing, or two have the same name.
    """
    pattern = card.splits[split].images  # type: ignore[index]
    if match := _RANGE.search(pattern):
        numbers = range(int(match[1]), int(match[2]) + 1)
        texts = [f"{pattern[: match.start()]}{n:0{len(match[1])}d}{pattern[match.end() :]}" for n in numbers]
        paths = [card.require(card.directory / text, "the image file") for text in texts]
    elif "*" in pattern:
        paths = sorted(card.directory.glob(pattern))
    else:
        paths = [card.require(card.directory / pattern, "the image file")]
    if not paths:
        raise HarnessError(f"card {card.name}: splits.{split}.images: no file matches {pattern!r}; {card.how_to_get}")
    if len({path.stem for path in paths}) < len(paths):
        raise HarnessError(f"card {card.name}: splits.{split}.images: two files of {pattern!r} have the same name")
    return paths


def image_stamp(card: DatasetCard, split: str) -> str:
    """A hash of name, size and time of change of every file that holds images of a split."""
    digest = hashlib.sha256()
    for path in _all_files(card, split):
        status = path.stat()
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _all_files(card: DatasetCard, split: str) -> Iterator[Path]:
    path = card.path(split, "images")
    if path.is_dir():
        for parent, folders, files in os.walk(path):
            folders.sort()
            yield from (Path(parent) / name for name in sorted(files))
    elif path.name.endswith(".tar"):
        from harness.data.shards import shard_files

        yield from shard_files(card, split)
    else:
        yield from image_files(card, split)
