"""Named arrays as one file: hashed by content, packed to the same bytes, and read without believing what it says."""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.evaluation.array_files import DAMAGED

Arrays = Mapping[str, NDArray[Any]]

MAX_STATISTICS_BYTES = 4_000_000_000  # unpacked, of all arrays of a record
_LENGTH = slice(8, 10)  # of an .npy: how long the header is that follows
MAX_ARRAYS = 1000

EPOCH = (1980, 1, 1, 0, 0, 0)  # the first time that a zip file can name


def hash_arrays(arrays: Arrays) -> str:
    """SHA-256 over named arrays: sorted names, dtypes, shapes and bytes (little-endian, row-major).

    Args:
        arrays: Array by name, any shape, no objects.

    Returns:
        64 hex digits, the same on every machine.
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = _portable(arrays[name])
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def predictions_hash(path: Path) -> str:
    """SHA-256 of a file of predictions, or of a folder's file names and contents in order.

    Raises:
        HarnessError: They cannot be read.
    """
    digest = hashlib.sha256()
    try:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            if path.is_dir():
                digest.update(file.relative_to(path).as_posix().encode("utf-8", "surrogateescape") + b"\0")
            digest.update(hashlib.sha256(file.read_bytes()).digest() if path.is_dir() else file.read_bytes())
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()


def pack(arrays: Arrays) -> bytes:
    """An .npz whose bytes depend on the arrays only: sorted names, no times, no file modes.

    Args:
        arrays: Array by name, any shape, no objects.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(arrays):
            member = zipfile.ZipInfo(f"{name}.npy", date_time=EPOCH)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.create_system = 3
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, _portable(arrays[name]), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def unpack(raw: bytes, source: str, limit: int) -> dict[str, NDArray[Any]]:
    """Read an .npz by a stranger: no objects, and no more memory than its members say and the limit allows.

    Args:
        raw: The file's bytes.
        source: Its name, for errors.
        limit: How many bytes all arrays together may have.

    Raises:
        HarnessError: It is damaged, too large, or holds something else than plain arrays.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if len(members) > MAX_ARRAYS or total > limit:
                raise HarnessError(
                    f"{source}: {len(members):,} arrays of {total:,} bytes are too many "
                    f"(at most {MAX_ARRAYS:,} of {limit:,})"
                )
            return {member.filename.removesuffix(".npy"): _array(archive.read(member)) for member in members}
    except (*DAMAGED, OSError) as error:
        raise HarnessError(f"{source}: damaged ({error}); restore the file, or submit the entry again") from None


def _portable(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.hasobject:
        raise HarnessError("statistics: arrays of Python objects cannot be stored; use numbers or fixed-width text")
    little = array.dtype.newbyteorder("<") if array.dtype.byteorder in "=>" else array.dtype
    return np.asarray(array, dtype=little, order="C")


def _array(raw: bytes) -> NDArray[Any]:
    """One .npy from bytes. The header is held against the size first: numpy allocates what a header claims."""
    start = _LENGTH.stop + int.from_bytes(raw[_LENGTH], "little")
    shape, dtype = _header(raw[:start])
    body = raw[start:]
    if math.prod(shape) * dtype.itemsize != len(body):
        raise ValueError(f"an array of shape {shape} and type {dtype} cannot have {len(body):,} bytes")
    return np.frombuffer(body, dtype=dtype).reshape(shape).copy()


@lru_cache(maxsize=1024)  # the same for all records on the same images, and numpy takes long to read one
def _header(raw: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
    stream = io.BytesIO(raw)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"array format {version} is not (1, 0)")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject or fortran:
        raise ValueError("an array holds objects or is column-major")
    return shape, dtype
