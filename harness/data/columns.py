"""Annotations as memory-mapped arrays: opened in milliseconds the second time, and one copy for all loader processes.

A list of Python objects is copied into every loader process and grows there (each access writes its reference count).
Arrays in a file do neither: they pickle as a path, and their pages are shared.
"""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from harness.atomic import directory
from harness.cards import cache_directory
from harness.errors import HarnessError

FORMAT = 1  # of the files; part of every key


class Texts(Sequence[str]):
    """Many texts in two arrays: their UTF-8 bytes, and where each begins.

    Args:
        data: uint8 [M], all texts one after another.
        starts: int64 [N + 1], text i is ``data[starts[i]:starts[i + 1]]``.
        origin: Where the arrays are mapped from, if they are: columns, name, first and last + 1 text.
    """

    def __init__(
        self,
        data: NDArray[np.uint8],
        starts: NDArray[np.int64],
        origin: tuple[Columns, str, int, int] | None = None,
    ) -> None:
        self.data, self.starts = data, starts
        self._origin = origin

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Pack texts."""
        encoded = [text.encode() for text in texts]
        starts = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(text) for text in encoded], out=starts[1:])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), starts)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._origin is None:
            return Texts, (self.data, self.starts)
        return _part_of, self._origin

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Texts: ...
    def __getitem__(self, index: int | slice) -> str | Texts:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return Texts.of([self[i] for i in range(start, stop, step)])
            stop = max(start, stop)
            origin = None
            if self._origin is not None:
                columns, name, first, _ = self._origin
                origin = (columns, name, first + start, first + stop)
            return Texts(self.data, self.starts[start : stop + 1], origin)
        index = range(len(self))[index]
        return self.data[self.starts[index] : self.starts[index + 1]].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        first = int(self.starts[0])
        content = self.data[first : int(self.starts[-1])].tobytes()
        places = (self.starts - first).tolist()  # plain numbers: twenty times as fast as one array access per text
        return (content[start:stop].decode() for start, stop in pairwise(places))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(mine == its for mine, its in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


class Columns:
    """Named arrays in a folder, mapped into memory on first use. Pickles as the folder's path.

    Args:
        folder: Holds ``<name>.npy`` files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The array of this name, read-only. Raises HarnessError where the cache is damaged."""
        if name not in self._open:
            self._open[name] = _map(self.folder / f"{name}.npy")
        return self._open[name]

    def texts(self, name: str) -> Texts:
        """The texts of this name."""
        starts = self[f"{name}.starts"]
        return Texts(self[f"{name}.bytes"], starts, (self, name, 0, len(starts) - 1))

    def __reduce__(self) -> tuple[type[Columns], tuple[Path]]:
        return Columns, (self.folder,)


def _map(path: Path) -> NDArray[Any]:
    try:
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
        except ValueError:  # nothing can be mapped of an empty array
            return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise HarnessError(f"{path.parent}: this folder of the cache is damaged; delete it") from None


def _part_of(columns: Columns, name: str, first: int, last: int) -> Texts:
    return columns.texts(name)[first:last]


def columns(key: str, make: Callable[[], Mapping[str, NDArray[Any] | Texts]]) -> Columns:
    """Columns from the cache folder, made if they are not there.

    Args:
        key: Hex digest of everything that the content depends on.
        make: Gives the content: arrays and texts by name.
    """
    place = f"v{FORMAT}-{key}"
    folder = cache_directory() / "columns" / place
    if folder.is_dir():
        return Columns(folder)
    content = make()
    try:
        return _write(folder, content)
    except HarnessError:  # the cache cannot be written; a folder for this process and its loaders will do
        return _write(_private() / place, content)


def file_key(*paths: Path, salt: str = "") -> str:
    """A key of `columns` for what is read from these files: SHA-256 over their contents and `salt`."""
    digest = hashlib.sha256(salt.encode())
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _write(folder: Path, content: Mapping[str, NDArray[Any] | Texts]) -> Columns:
    with directory(folder, replace=True) as unfinished:
        for name, value in content.items():
            if isinstance(value, Texts):
                np.save(unfinished / f"{name}.bytes.npy", value.data, allow_pickle=False)
                np.save(unfinished / f"{name}.starts.npy", value.starts, allow_pickle=False)
            else:
                np.save(unfinished / f"{name}.npy", value, allow_pickle=False)
    return Columns(folder)


@cache
def _private() -> Path:
    folder = tempfile.mkdtemp(prefix="harness-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
