"""Draws of images for the bootstrap, and swaps for permutation tests: the same for every entry on the same images."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.arrays import Weights

_ROWS = 128  # draws made at once, at least ...
_CELLS = 1 << 17  # ... and at most so many numbers of more of them, which a processor's cache holds
_KEPT = 8  # sets of draws that are kept packed, of at most so many bytes each
_KEPT_BYTES = 1 << 26


def draw_weights(images: int, draws: int, seed: int) -> NDArray[np.int64]:
    """How often each image is drawn, in each of many samples of as many images with replacement.

    Args:
        images: N.
        draws: D.
        seed: The same seed gives the same draws; draw d does not depend on D.

    Returns:
        int64 [D, N], rows sum to N.
    """
    blocks = list(draw_blocks(images, draws, seed))
    return np.concatenate(blocks, dtype=np.int64) if blocks else np.empty((0, images), dtype=np.int64)


def draw_blocks(images: int, draws: int, seed: int) -> Iterator[Weights]:
    """`draw_weights`, [some, N] at a time, so that memory stays bounded; few images in a type of fewer bytes."""
    yield from _blocks(images, draws, seed, False)


def swap_blocks(images: int, draws: int, seed: int) -> Iterator[Weights]:
    """Random swaps, [some, N] at a time, D in all: 1 where an image's two predictions are swapped, else 0."""
    yield from _blocks(images, draws, seed, True)


def _blocks(images: int, draws: int, seed: int, swaps: bool) -> Iterator[Weights]:
    if images * draws <= _KEPT_BYTES:
        packed = _packed(images, draws, seed, swaps)
        rows = _rows(images)
        for start in range(0, draws, rows):
            yield packed[start : start + rows]
    else:
        yield from _drawn(images, draws, seed, swaps)


@lru_cache(maxsize=_KEPT)
def _packed(images: int, draws: int, seed: int, swaps: bool) -> NDArray[np.unsignedinteger[Any]]:
    """All draws in as few bytes as they need. A board compares many entries on the same images under the same draws."""
    packed = np.zeros((draws, images), np.uint8)
    start = 0
    for block in _drawn(images, draws, seed, swaps):
        if block.max(initial=0) > np.iinfo(packed.dtype).max:
            packed = packed.astype(np.uint32)
        packed[start : start + len(block)] = block
        start += len(block)
    return packed


def _drawn(images: int, draws: int, seed: int, swaps: bool) -> Iterator[NDArray[np.int64]]:
    generator = np.random.default_rng([seed, 3] if swaps else seed)  # swaps are a stream of their own
    rows = _rows(images)
    for start in range(0, draws, rows):
        size = min(rows, draws - start)
        if swaps:
            yield generator.integers(0, 2, (size, images))
        else:
            counts = [np.bincount(generator.integers(0, images, images), minlength=images) for _ in range(size)]
            yield np.array(counts, dtype=np.int64).reshape(size, images)


def _rows(images: int) -> int:
    return max(_ROWS, _CELLS // max(images, 1))
