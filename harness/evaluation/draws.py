"""Draws of images for the bootstrap: the same for every entry on the same images, made once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 128  # draws held in memory at once
_KEPT = 4  # sets of draws that are kept packed, of at most so many bytes each
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
    return np.concatenate(blocks) if blocks else np.empty((0, images), dtype=np.int64)


def draw_blocks(images: int, draws: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """`draw_weights`, int64 [at most 128, N] at a time, so that memory stays bounded."""
    if images * draws <= _KEPT_BYTES:
        packed = _packed_draws(images, draws, seed)
        for start in range(0, draws, _BLOCK):
            yield packed[start : start + _BLOCK].astype(np.int64)
    else:
        yield from _drawn_blocks(images, draws, seed)


@lru_cache(maxsize=_KEPT)
def _packed_draws(images: int, draws: int, seed: int) -> NDArray[np.unsignedinteger[Any]]:
    """All draws in as few bytes as they need. A board compares many entries on the same images under the same draws."""
    packed = np.zeros((draws, images), np.uint8)
    for n, block in enumerate(_drawn_blocks(images, draws, seed)):
        if block.max(initial=0) > np.iinfo(packed.dtype).max:
            packed = packed.astype(np.uint32)
        packed[n * _BLOCK : n * _BLOCK + len(block)] = block
    return packed


def _drawn_blocks(images: int, draws: int, seed: int) -> Iterator[NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    for start in range(0, draws, _BLOCK):
        rows = [
            np.bincount(generator.integers(0, images, images), minlength=images)
            for _ in range(start, min(start + _BLOCK, draws))
        ]
        yield np.array(rows, dtype=np.int64).reshape(len(rows), images)
