"""Checks that every metric makes of stored statistics, of image ids and of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError


def stored(arrays: Mapping[str, NDArray[Any]], name: str, dtype: type[np.generic], *shape: int | None) -> NDArray[Any]:
    """One array of stored statistics.

    Args:
        arrays: The statistics.
        name: Which array.
        dtype: `numpy.str_` for text of any length, else the exact dtype.
        shape: Length of each axis; None where any length will do.

    Raises:
        HarnessError: The array is missing, or has another dtype or shape.
    """
    if name not in arrays:
        raise HarnessError(f"statistics: {name}: this array is required and missing; score the predictions again")
    array = np.asarray(arrays[name])
    if array.dtype.kind == "U" and array.size:
        letters = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False)).view(np.uint32)
        if letters.max() >= 0xD800 and (((letters >> 11) == 0x1B) | (letters > 0x10FFFF)).any():
            raise HarnessError(f"statistics: {name}: holds characters that there are not; score the predictions again")
    right = array.dtype.kind == "U" if dtype is np.str_ else array.dtype == dtype
    if not right:
        raise HarnessError(
            f"statistics: {name}: dtype {array.dtype} where {np.dtype(dtype).name} is required; "
            "score the predictions again"
        )
    if array.ndim != len(shape) or any(n is not None and n != m for n, m in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise HarnessError(
            f"statistics: {name}: shape {list(array.shape)} where [{wanted}] is required; score the predictions again"
        )
    return array


def within(array: NDArray[Any], name: str, low: int, high: int) -> NDArray[Any]:
    """The array, whose values lie from `low` to `high` inclusive.

    Raises:
        HarnessError: A value lies outside.
    """
    outside = (array < low) | (array > high)
    if outside.any():
        value = array[outside].flat[0]
        raise HarnessError(f"statistics: {name}: {value} is not between {low} and {high}; score the predictions again")
    return array


def require(holds: bool | np.bool_, name: str, rule: str) -> None:
    """See to it that stored statistics keep a rule that all scoring keeps.

    Raises:
        HarnessError: They do not, so nothing was scored to give them.
    """
    if not holds:
        raise HarnessError(f"statistics: {name}: {rule}; score the predictions again")


def stored_ids(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.str_]:
    """The image ids of stored statistics, which must be sorted and unique.

    Raises:
        HarnessError: They are missing, not text, or not sorted and unique.
    """
    ids = stored(arrays, "ids", np.str_, None)
    if len(ids) > 1 and not (ids[:-1] < ids[1:]).all():
        raise HarnessError("statistics: ids: not sorted and unique; score the predictions again")
    return ids


def sorted_ids(ids: Sequence[str], what: str = "ids") -> tuple[NDArray[np.str_], NDArray[np.intp]]:
    """Image ids in canonical order.

    Args:
        ids: N texts.
        what: Name of the list, for the error.

    Returns:
        str [N] sorted, and intp [N], the order that sorts them.

    Raises:
        HarnessError: An id appears twice.
    """
    array = np.asarray(ids, dtype=np.str_)
    if array.ndim != 1:
        raise HarnessError(f"{what}: a flat list of ids is required, found shape {list(array.shape)}")
    order = np.argsort(array, kind="stable")
    array = array[order]
    twice = np.flatnonzero(array[1:] == array[:-1])
    if len(twice):
        raise HarnessError(f"{what}: {str(array[twice[0]])!r} appears twice; every image counts once")
    return array, order


def union(shards: Sequence[NDArray[np.str_]]) -> tuple[NDArray[np.str_], NDArray[np.intp]]:
    """Image ids of several shards, each once.

    Args:
        shards: Ids of each shard.

    Returns:
        str [N] sorted and unique, and intp [N], the position of each one's first occurrence in the joined list.
    """
    if not shards:
        raise HarnessError("merge: no shards were given; at least one is required")
    ids, first = np.unique(np.concatenate(shards), return_index=True)
    return ids, first


def owners(shards: Sequence[NDArray[np.str_]]) -> tuple[NDArray[np.str_], list[NDArray[np.int32]]]:
    """Which rows of which shard a merge keeps, for statistics that hold several rows per image.

    Args:
        shards: Ids of each shard.

    Returns:
        str [N] sorted and unique ids, and for each shard int32 [its ids], the image's place in them; -1 where an
        earlier shard holds the same image.
    """
    ids, first = union(shards)
    places = []
    start = 0
    for shard in shards:
        place = np.searchsorted(ids, shard).astype(np.int32)
        place[first[place] != np.arange(start, start + len(shard))] = -1
        places.append(place)
        start += len(shard)
    return ids, places


Weights = NDArray[np.integer[Any]]  # how often each image counts


def checked_weights(weights: Weights, images: int) -> NDArray[np.int64]:
    """Weights as int64, one per image and none negative; the last axis runs over images.

    Raises:
        HarnessError: Wrong length, negative, or no whole numbers.
    """
    return require_weights(weights, images).astype(np.int64, copy=False)


def require_weights(weights: Weights, images: int) -> Weights:
    """`checked_weights` in the type they have."""
    array = np.asarray(weights)
    if array.dtype.kind not in "iu":
        raise HarnessError(f"weights: dtype {array.dtype}, but weights are whole numbers: how often an image counts")
    if array.ndim == 0 or array.shape[-1] != images:
        raise HarnessError(f"weights: shape {list(array.shape)}, but there are {images} images")
    if array.size and array.min() < 0:
        raise HarnessError(f"weights: {array.min()} is negative; weights say how often an image counts")
    return array


def grouped_sums(values: NDArray[np.int64], group: NDArray[np.integer[Any]], groups: int) -> NDArray[np.int64]:
    """Sums over the columns of each group.

    Args:
        values: int64 [D, N].
        group: int [N], the group of each column, below `groups`.
        groups: G.

    Returns:
        int64 [D, G].
    """
    sums: NDArray[np.int64] = np.zeros((len(values), groups), np.int64)
    if groups and len(group):
        order = np.argsort(group, kind="stable")
        present, first = np.unique(group[order], return_index=True)
        sums[:, present] = np.add.reduceat(values[:, order], first, axis=1)
    return sums


def ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[np.float64]:
    """Numerator / denominator in float64; NaN where the denominator is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    quotient: NDArray[np.float64] = np.full(top.shape, np.nan)
    np.divide(top, bottom, out=quotient, where=bottom != 0)
    return quotient


def same(arrays: Sequence[NDArray[Any]], what: str) -> NDArray[Any]:
    """The array that all shards share, such as the class names.

    Raises:
        HarnessError: They differ.
    """
    for other in arrays[1:]:
        if not np.array_equal(arrays[0], other):
            raise HarnessError(f"merge: {what} differ between shards; only shards of one data set can be joined")
    return arrays[0]
