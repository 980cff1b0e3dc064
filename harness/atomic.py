"""Writing files so that a reader sees the old content or the new, never half, even if the writer is killed."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from harness.errors import HarnessError

TEMPORARY = ".tmp-"  # every unfinished file or folder starts like this; readers ignore such names
ASIDE = ".old-"  # finished content on its way out, where a file system cannot swap; never swept away
RECENT = 3600.0  # seconds for which nothing unfinished is swept: some network mounts lock for one machine only


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file's content in one step.

    The bytes go to a temporary file in the same folder, reach the disk, and only then take the file's name.

    Args:
        path: The file; missing parent folders are made.
        data: Its new content.

    Raises:
        HarnessError: The disk is full or the folder cannot be written; the old content is untouched.
    """
    temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                _hold(file.fileno())
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(path.parent)
    except OSError as error:
        raise _explained(path, error) from None


def write_text(path: Path, text: str) -> None:
    """Replace a file's content by UTF-8 text in one step. See `write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: Path, document: Any) -> None:
    """Replace a file's content by a JSON document in one step. See `write_bytes` and `json_bytes`."""
    write_bytes(path, json_bytes(document))


def json_bytes(document: Any) -> bytes:
    """A JSON document as bytes that depend on its content only: sorted keys, two spaces, a newline at the end."""
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def make_folder(path: Path) -> None:
    """Make a folder that can be written into, with the folders above it; one that is there stays.

    Raises:
        HarnessError: It cannot be made, or nothing can be written into it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise _explained(path, error) from None


@contextmanager
def directory(path: Path, replace: bool = False) -> Iterator[Path]:
    """Build a folder beside its place and move it there in one step, so that its files appear together or not at all.

    What killed writers left beside it is swept away.

    Args:
        path: The folder to make.
        replace: Whether a folder that is there with other content gives way. An identical one always stays.

    Yields:
        An empty folder to write into. If the block raises, it is removed and `path` is untouched.

    Raises:
        HarnessError: `path` exists with other content and `replace` is false, or the disk is full.
    """
    temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        temporary.mkdir()
        held = os.open(temporary, os.O_RDONLY)
        try:
            _hold(held)
            yield temporary
            _sync_tree(temporary)
            with locked(path.parent):
                _take_place(temporary, path, replace)
            _sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            os.close(held)
    except OSError as error:
        raise _explained(path, error) from None


def sweep(folder: Path, below: bool = False) -> None:
    """Remove what killed writers left unfinished in a folder.

    A writer holds a lock on what it writes, which ends with its process, so what can be locked belongs to nobody. Where
    locks do not work nothing is removed, and nothing that changed within the last hour.

    Args:
        folder: Where to look; it may be missing.
        below: Whether to look into the folders that lie in it, too, but no deeper.
    """
    try:
        with os.scandir(folder) as listing:
            found = list(listing)
    except OSError:
        return
    if below:
        for item in found:
            if item.is_dir(follow_symlinks=False) and not item.name.startswith("."):
                sweep(folder / item.name)
    for path in (folder / item.name for item in found if item.name.startswith(TEMPORARY)):
        with suppress(OSError):  # in use, or somebody else was faster
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - _changed(path) > RECENT:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(descriptor)


def _changed(path: Path) -> float:
    """When a file, or anything in a folder, was last written."""
    return max(part.lstat().st_mtime for part in (path, *path.rglob("*")))


def _hold(descriptor: int) -> None:
    """Lock what is being written, where the file system can, until it is closed or the process ends."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder's advisory lock, which leaves no file behind and ends with the process.

    A file system without such locks (some network mounts) is used unlocked: each step is still atomic by itself.
    Not re-entrant: a second lock of the same folder in the same thread would wait for itself.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _take_place(temporary: Path, path: Path, replace: bool) -> None:
    try:
        temporary.rename(path)
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
    if path.is_dir() and _contents(temporary) == _contents(path):
        return
    if not replace:
        raise HarnessError(f"{path}: exists already with other content; remove it first, or replace it explicitly")
    if not _exchange(temporary, path):
        # No exchange on this file system: between these two steps the folder is missing, never half there.
        aside = temporary.with_name(f"{ASIDE}{secrets.token_hex(8)}")
        path.rename(aside)
        temporary.rename(path)
        aside.rename(temporary)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two paths in one step where the system can: renameat2(2) on Linux, renamex_np(2) on macOS."""
    libc = ctypes.CDLL(None, use_errno=True)
    first, second = os.fsencode(a), os.fsencode(b)
    here, exchange = -100, 2  # AT_FDCWD; RENAME_EXCHANGE on Linux and RENAME_SWAP on macOS
    try:
        if sys.platform == "darwin":
            return int(libc.renamex_np(first, second, ctypes.c_uint(exchange))) == 0
        return int(libc.renameat2(here, first, here, second, ctypes.c_uint(exchange))) == 0
    except AttributeError:  # a C library without the call
        return False


def _contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    """Bring a file's content, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explained(path: Path, error: OSError) -> HarnessError:
    mend = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose a folder that can be written"
    return HarnessError(f"{path}: cannot be written ({error.strerror}); {mend} and try again, nothing was changed")
