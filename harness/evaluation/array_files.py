"""Named arrays from strangers' files: NPZ and Parquet. Nothing is unpickled, nothing large is allocated on trust."""

from __future__ import annotations

import lzma
import math
import zipfile
import zlib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.evaluation.files import require_file

# What zipfile and numpy raise over damaged or hostile files, besides HarnessError: a header is a Python literal.
DAMAGED = (
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    SyntaxError,
    TokenError,
    EOFError,
    RuntimeError,
    MemoryError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)


def read_npz(path: Path, names: Sequence[str], limit: int) -> list[NDArray[Any]]:
    """Read some arrays of an NPZ file.

    Args:
        path: The file.
        names: Which arrays; others are left alone.
        limit: The most bytes that one array may have.

    Raises:
        HarnessError: The file cannot be read, an array is missing, holds Python objects, or is larger than the limit.
    """
    require_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return [_member(path, archive, name, limit) for name in names]
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({error.strerror or error})") from None
    except DAMAGED as error:
        raise HarnessError(f"{path}: not a valid NPZ file of plain arrays ({error}); write it again") from None


def _member(path: Path, archive: zipfile.ZipFile, name: str, limit: int) -> NDArray[Any]:
    """One array of an NPZ, whose header is checked before anything of its size is allocated; never unpickled."""
    if f"{name}.npy" not in archive.namelist():
        raise HarnessError(f"{path}: {name}: this array is required and missing")
    size = archive.getinfo(f"{name}.npy").file_size
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        stated = math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise ValueError(f"{name} holds Python objects")
        if not 0 <= stated <= size <= limit:
            raise ValueError(
                f"{name} states {stated:,} bytes in a file of {size:,}, and at most {limit:,} are accepted"
            )
    with archive.open(f"{name}.npy") as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def read_parquet(path: Path, names: Sequence[str], rows: int, limit: int) -> list[NDArray[Any]]:
    """Read some columns of a Parquet file. A column of lists of one length becomes a matrix.

    Args:
        path: The file.
        names: Which columns; others are left alone.
        rows: The most rows that are accepted.
        limit: The most bytes that one column may unpack to.

    Raises:
        HarnessError: pyarrow is not installed, the file cannot be read, a column is missing, has empty cells or lists
            of several lengths, or is larger than the limits.
    """
    try:
        pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise HarnessError(
            f"{path}: reading Parquet needs pyarrow, which is not installed; pip install pyarrow, or write .npz"
        ) from None
    require_file(path)
    try:
        with parquet.ParquetFile(path) as file:
            _check_parquet(path, file, names, rows, limit)
            table = file.read(columns=list(names))
        return [_flat(path, name, table.column(name).combine_chunks()) for name in names]
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (pyarrow.ArrowException, ValueError, TypeError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise HarnessError(f"{path}: not a valid Parquet file ({text}); write it again") from None


def _check_parquet(path: Path, file: Any, names: Sequence[str], rows: int, limit: int) -> None:
    present = set(file.schema_arrow.names)
    missing = next((name for name in names if name not in present), None)
    if missing is not None:
        raise HarnessError(f"{path}: {missing}: this column is required and missing")
    if file.metadata.num_rows > rows:
        raise HarnessError(f"{path}: {file.metadata.num_rows:,} rows, and at most {rows:,} are accepted")
    stated = dict.fromkeys(names, 0)
    for n in range(file.metadata.num_row_groups):
        part = file.metadata.row_group(n)
        for index in range(part.num_columns):
            chunk = part.column(index)
            name = chunk.path_in_schema.split(".")[0]
            if name in stated:
                stated[name] += max(chunk.total_uncompressed_size, 8 * chunk.num_values)
    large = next((name for name in names if stated[name] > limit), None)
    if large is not None:
        raise HarnessError(f"{path}: {large} unpacks to {stated[large]:,} bytes, and at most {limit:,} are accepted")


def _flat(path: Path, name: str, array: Any) -> NDArray[Any]:
    """A column as a vector, or as a matrix where it holds lists."""
    nested = hasattr(array, "flatten") and hasattr(array.type, "value_type")
    values = array.flatten() if nested else array
    if array.null_count or values.null_count:
        raise HarnessError(f"{path}: {name}: holds empty cells; every row needs a value")
    flat: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    if not nested:
        return flat
    lengths = np.diff(array.offsets.to_numpy()) if hasattr(array, "offsets") else np.array([array.type.list_size])
    if len(array) and len(np.unique(lengths)) != 1:
        raise HarnessError(f"{path}: {name}: holds lists of {lengths.min()} to {lengths.max()} numbers; one length")
    return flat.reshape(len(array), int(lengths[0]) if len(lengths) else 0)
