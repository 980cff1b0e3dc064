"""Whether two entries differ: a permutation test that swaps their predictions image by image.

If two entries are equally good, it is a matter of chance which of them made which of an image's two predictions. So
every way to hand the predictions out gives a difference that was as likely as the one observed. Unlike a bootstrap's,
the p-value is exact for any number of images, for every metric: mAP and mIoU included, because the test scores mixed
sets of predictions and never adds up differences of single images. Sources: Fisher 1935, "The Design of Experiments";
Yeh 2000, "More accurate tests for the statistical significance of result differences" (COLING), section 3.3;
Phipson and Smyth 2010, "Permutation p-values should never be zero"; Knijnenburg et al. 2009, "Fewer permutations, more
accurate P-values" (Bioinformatics).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.evaluation.arrays import Weights
from harness.evaluation.draws import swap_blocks
from harness.evaluation.metric import Result, SummedResult
from harness.evaluation.resampling import require_breakdown, require_comparable

_SAME = 1e-12  # differences this close are equal: sums run in another order
Numbers = Callable[[Result, Weights], NDArray[np.float64]]  # of D weightings, [D, P]
_FIRST_ID = 10**18  # all new ids have 19 digits, so that their order as text is that as numbers


def permutation_p_value(
    a: Sequence[Result], b: Sequence[Result], draws: int = 1000, seed: int = 0, tail: bool = False
) -> float:
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
        tail: Families of many tests need smaller p-values than the number of swaps can show. If no swap comes up to the
            observed difference, give the normal tail beyond it (at its distance from 0 in standard deviations of the
            swaps' differences; Knijnenburg 2009 on fitting tails), but no less than N images can show, 2^(1 - N).

    Returns:
        In (0, 1]; NaN where the difference is undefined.

    Raises:
        HarnessError: No results, unequal numbers of seeds, or results of different metrics or images.
    """
    return float(_p_values(_pairs(a, b), len(a[0].ids), draws, seed, tail)[0])


def permutation_p_values_by(
    a: Sequence[Result], b: Sequence[Result], kind: str, draws: int = 1000, seed: int = 0
) -> dict[str, float]:
    """`permutation_p_value`, with tails, of every part of the data at once, such as every class.

    Args:
        a: First entry, one result per training seed.
        b: Second entry, as many.
        kind: One of the results' `breakdowns`.
        draws: Random swaps, at least 1.
        seed: Of the swaps.

    Returns:
        By part, in the results' order; NaN where the part's difference is undefined.

    Raises:
        HarnessError: As `permutation_p_value`, or there is no such breakdown.
    """
    pairs, images = _pairs(a, b, lambda result, w: result.reduce_by(kind, w)[1]), len(a[0].ids)
    require_breakdown(a[0], kind)
    names, _ = a[0].reduce_by(kind, np.ones((1, images), np.int64))
    found = _p_values(pairs, images, draws, seed, True)
    return dict(zip(names, found.tolist(), strict=True))


def swapped_differences(a: Sequence[Result], b: Sequence[Result], swaps: Weights) -> NDArray[np.float64]:
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
    return _differences(_pairs(a, b), swaps)[:, 0]


def _pairs(a: Sequence[Result], b: Sequence[Result], numbers: Numbers | None = None) -> list[_Pool | _Sums]:
    """One for each seed; `numbers` are what to compare, if not the headline number."""
    require_comparable([*a, *b], [len(a), len(b)])
    if len(a) != len(b):
        raise HarnessError(
            f"permutation: {len(a)} and {len(b)} seeds cannot be paired; give both entries the same number of seeds"
        )
    found: list[_Pool | _Sums] = []
    for first, second in zip(a, b, strict=True):
        if isinstance(first, SummedResult) and isinstance(second, SummedResult) and not numbers:
            found.append(_Sums(first, second))
        else:
            found.append(_Pool(first, second, numbers or (lambda result, w: result.reduce_main(w)[:, None])))
    return found


class _Sums:
    """Both sides' sums over images: a swapped image takes what it adds from one side to the other."""

    def __init__(self, a: SummedResult, b: SummedResult) -> None:
        self.number = a.number_of
        self.totals = a.image_sums.sum(axis=0), b.image_sums.sum(axis=0)
        self.moved = b.image_sums - a.image_sums

    def differences(self, swaps: Weights) -> NDArray[np.float64]:
        """Of each swap, float64 [D, 1]."""
        moved = swaps.astype(np.float64) @ self.moved
        return (self.number(self.totals[0] + moved) - self.number(self.totals[1] - moved))[:, None]


class _Pool:
    """Both sides' images as one result: a choice of N of its 2 N images is a mixed set of predictions."""

    def __init__(self, a: Result, b: Result, numbers: Numbers) -> None:
        self.numbers = numbers
        ids = [_FIRST_ID + 2 * a.order + side for side in (0, 1)]  # images stay in the order that decides ties
        sides = []
        for result, identities in zip((a, b), ids, strict=True):
            side = copy.copy(result)
            side.ids = identities.astype(np.str_)
            sides.append(side)
        self.result = type(a).merge(sides)
        self.places = [np.searchsorted(self.result.ids, side.ids) for side in sides]

    def differences(self, swaps: Weights) -> NDArray[np.float64]:
        """Of each swap and number, float64 [D, P]."""
        return self._reduced(swaps) - self._reduced(1 - swaps)

    def _reduced(self, swaps: Weights) -> NDArray[np.float64]:
        weights = np.empty((len(swaps), len(self.result.ids)), np.int64)
        weights[:, self.places[0]], weights[:, self.places[1]] = 1 - swaps, swaps
        return self.numbers(self.result, weights)


def _differences(pairs: Iterable[_Pool | _Sums], swaps: Weights) -> NDArray[np.float64]:
    """[D, P]: of each swap and number, the mean over seeds."""
    found: NDArray[np.float64] = np.mean([pair.differences(swaps) for pair in pairs], axis=0)
    return found


def _p_values(pairs: Sequence[_Pool | _Sums], images: int, draws: int, seed: int, tail: bool) -> NDArray[np.float64]:
    """[P]: the p-value of every number."""
    if draws < 1:
        raise HarnessError(f"draws: {draws} is too few; a permutation test needs at least 1, and 1000 to be steady")
    (observed,) = _differences(pairs, np.zeros((1, images), np.int64))
    larger, squares = np.zeros(len(observed), np.int64), np.zeros(len(observed))
    for swaps in swap_blocks(images, draws, seed):
        found = _differences(pairs, swaps)
        # What a swap leaves undefined (a class that neither mixed side predicts) speaks for no difference.
        larger += np.sum(~(np.abs(found) < np.abs(observed) - _SAME), axis=0)
        squares += np.nansum(found**2, axis=0)
    p = (1 + larger) / (1 + draws)
    if tail:
        for part in np.flatnonzero((larger == 0) & (squares > 0)):
            deviations = abs(observed[part]) / math.sqrt(squares[part] / draws)
            p[part] = min(p[part], max(math.erfc(deviations / math.sqrt(2)), 2.0 ** max(1 - images, -1000)))
    return np.where(np.isfinite(observed), p, math.nan)
