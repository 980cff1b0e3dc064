"""Whether two entries differ: a permutation test that swaps their predictions image by image.

If two entries are equally good, it is a matter of chance which of them made which of an image's two predictions. So
every way to hand the predictions out gives a difference that was as likely as the one observed. Unlike a bootstrap's,
the p-value is exact for any number of images, for every metric: mAP and mIoU included, because the test scores mixed
sets of predictions and never adds up differences of single images. Sources: Fisher 1935, "The Design of Experiments";
Yeh 2000, "More accurate tests for the statistical significance of result differences" (COLING), section 3.3;
Phipson and Smyth 2010, "Permutation p-values should never be zero".
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.evaluation.metric import Result
from harness.evaluation.resampling import require_comparable

_BLOCK = 128  # swaps held in memory at once
_SAME = 1e-12  # differences this close are equal: sums run in another order
_FIRST_ID = 10**18  # all new ids have 19 digits, so that their order as text is that as numbers


def permutation_p_value(a: Sequence[Result], b: Sequence[Result], draws: int = 1000, seed: int = 0) -> float:
    """Two-sided p-value of "it does not matter which entry made which prediction".

    A swap hands each image's two predictions to the two sides at random and scores both sides. The p-value is
    (1 + swaps with a difference at least as large as the observed one) / (1 + swaps). It is never 0, and equal entries
    get 1. With several training seeds the seeds are paired position by position, an image is swapped in all of them at
    once, and the difference is that of the means: the test speaks of images, and does not see how seeds scatter.

    Args:
        a: First entry, one result per training seed.
        b: Second entry, as many.
        draws: Random swaps, at least 1.
        seed: Of the swaps.

    Returns:
        In (0, 1]; NaN where the difference is undefined.

    Raises:
        HarnessError: No results, unequal numbers of seeds, or results of different metrics or images.
    """
    if draws < 1:
        raise HarnessError(f"draws: {draws} is too few; a permutation test needs at least 1, and 1000 to be steady")
    pairs = _pooled(a, b)
    images = len(a[0].ids)
    (observed,) = _differences(pairs, np.zeros((1, images), np.int64))
    if not math.isfinite(observed):
        return math.nan
    larger = 0
    for swaps in _random_swaps(images, draws, seed):
        larger += int(np.count_nonzero(np.abs(_differences(pairs, swaps)) >= abs(observed) - _SAME))
    return (1 + larger) / (1 + draws)


def swapped_differences(a: Sequence[Result], b: Sequence[Result], swaps: NDArray[np.int64]) -> NDArray[np.float64]:
    """The difference of the headline numbers, first minus second, after swapping predictions.

    Args:
        a: First entry, one result per training seed.
        b: Second entry, as many.
        swaps: int64 [D, N], 1 where the two sides' predictions of an image (in the results' order) are swapped, else 0.

    Returns:
        float64 [D], equal to scoring files in which the predictions were swapped.

    Raises:
        HarnessError: As `permutation_p_value`.
    """
    return _differences(_pooled(a, b), swaps)


def _pooled(a: Sequence[Result], b: Sequence[Result]) -> list[_Pool]:
    require_comparable([*a, *b], [len(a), len(b)])
    if len(a) != len(b):
        raise HarnessError(
            f"permutation: {len(a)} and {len(b)} seeds cannot be paired; give both entries the same number of seeds"
        )
    return [_Pool(first, second) for first, second in zip(a, b, strict=True)]


class _Pool:
    """Both sides' images as one result: a choice of N of its 2 N images is a mixed set of predictions."""

    def __init__(self, a: Result, b: Result) -> None:
        ids = [_FIRST_ID + 2 * a.order + side for side in (0, 1)]  # images stay in the order that decides ties
        sides = []
        for result, numbers in zip((a, b), ids, strict=True):
            side = copy.copy(result)
            side.ids = numbers.astype(np.str_)
            sides.append(side)
        self.result = type(a).merge(sides)
        self.places = [np.searchsorted(self.result.ids, side.ids) for side in sides]

    def reduce(self, swaps: NDArray[np.int64]) -> NDArray[np.float64]:
        weights = np.empty((len(swaps), len(self.result.ids)), np.int64)
        weights[:, self.places[0]], weights[:, self.places[1]] = 1 - swaps, swaps
        return self.result.reduce_main(weights)


def _differences(pairs: Iterable[_Pool], swaps: NDArray[np.int64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.mean([pool.reduce(swaps) - pool.reduce(1 - swaps) for pool in pairs], axis=0)
    return found


def _random_swaps(images: int, draws: int, seed: int) -> Iterator[NDArray[np.int64]]:
    generator = np.random.default_rng([seed, 3])  # a stream of its own, beside the bootstrap's
    for start in range(0, draws, _BLOCK):
        yield generator.integers(0, 2, (min(_BLOCK, draws - start), images))
