"""Draws of images for the bootstrap, and swaps for permutation tests: the same for every entry on the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    yield from _blocks(_samples, images, draws, seed)


def swap_blocks(images: int, draws: int, seed: int) -> Iterator[Weights]:
    """Random swaps, [some, N] at a time, D in all: 1 where an image's two predictions are swapped, else 0."""
    yield from _blocks(_swaps, images, draws, seed)


Maker = Callable[[int, int, int], Iterator[NDArray[np.int64]]]  # of images, draws, seed: blocks of `_sizes` rows


def _blocks(make: Maker, images: int, draws: int, seed: int) -> Iterator[Weights]:
    if images * draws <= _KEPT_BYTES:
        packed = _packed(make, images, draws, seed)
        start = 0
        for size in _sizes(images, draws):
            yield packed[start : start + size]
            start += size
    else:
        yield from make(images, draws, seed)


@lru_cache(maxsize=_KEPT)
def _packed(make: Maker, images: int, draws: int, seed: int) -> NDArray[np.unsignedinteger[Any]]:
    """All draws in as few bytes as they need. A board compares many entries on the same images under the same draws."""
    packed = np.zeros((draws, images), np.uint8)
    start = 0
    for block in make(images, draws, seed):
        if block.max(initial=0) > np.iinfo(packed.dtype).max:
            packed = packed.astype(np.uint32)
        packed[start : start + len(block)] = block
        start += len(block)
    return packed


def _samples(images: int, draws: int, seed: int) -> Iterator[NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    for size in _sizes(images, draws):
        counts = [np.bincount(generator.integers(0, images, images), minlength=images) for _ in range(size)]
        yield np.array(counts, dtype=np.int64).reshape(size, images)


def _swaps(images: int, draws: int, seed: int) -> Iterator[NDArray[np.int64]]:
    generator = np.random.default_rng([seed, 3])  # a stream of their own
    for size in _sizes(images, draws):
        yield generator.integers(0, 2, (size, images))


def _sizes(images: int, draws: int) -> Iterator[int]:
    """How many draws are in each block."""
    rows = max(_ROWS, _CELLS // max(images, 1))
    for start in range(0, draws, rows):
        yield min(rows, draws - start)
