"""Two entries on the same images: their difference, its interval and its test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.evaluation.metric import Result
from harness.evaluation.resampling.intervals import LEVEL, Interval, quantiles
from harness.evaluation.resampling.levels import check_sides, reduce_sides, require_breakdown, seed_error, seed_noise
from harness.evaluation.resampling.p_values import p_value, p_value_with_seeds

_Z_LEVEL = 1.959964  # standard normal quantile of (1 + LEVEL) / 2
_Z_POWER = 0.841621  # and of the power 0.8


@dataclass(frozen=True)
class PairedDifference:
    """Two entries on the same images.

    Attributes:
        a: First entry's number, the mean over its seeds.
        b: Second entry's.
        difference: a - b.
        interval: Percentile interval of the difference.
        p_value: Two-sided, of "no difference": twice the smaller share of draws on one side of zero, the noise of seeds
            integrated out.
        images: How many images.
        seeds: Training seeds of the entry that has fewer.
        paired_seeds: Whether both sides have the same number of seeds (more than one), compared position by position.
        image_spread: Standard deviation of the difference over draws of images alone.
        seed_spread: Standard error of the difference that comes from the training seeds; 0 for one seed.
    """

    a: float
    b: float
    difference: float
    interval: Interval
    p_value: float
    images: int
    seeds: int
    paired_seeds: bool
    image_spread: float = math.nan
    seed_spread: float = 0.0


def paired_difference(a: Sequence[Result], b: Sequence[Result], draws: int = 1000, seed: int = 0) -> PairedDifference:
    """Compare two entries on the same images under the same draws.

    The interval is the percentile interval of the difference of headline numbers, which covers as it says because the
    bias of either number cancels. With several seeds on both sides it is a two-level bootstrap as in `entry_interval`:
    equal numbers of seeds are paired position by position (sort both by seed), so what a seed fixes for both, such as
    the order of the data, cancels, too; unequal numbers are independent samples (Welch). One seed against several
    takes the spread of the several for both. One against one says nothing about other seeds.

    The p-value inverts the interval: twice the smaller share of draws at or beyond zero, counted with the estimate
    itself among them, so that it is never 0 and two identical entries get 1. With several seeds their noise, Student's
    t, is not drawn but integrated: the mean over draws of images of the share of t beyond zero. That has no smallest
    value that the number of draws sets, so that large families can be corrected. Correct families of them with `holm`.

    Args:
        a: First entry, one result per training seed.
        b: Second entry, likewise.
        draws: Bootstrap draws, at least 2.
        seed: Of the draws.

    Raises:
        HarnessError: No results, or results of different metrics or images.
    """
    check_sides([*a, *b], draws, [len(a), len(b)])
    estimates, drawn = reduce_sides([list(a), list(b)], draws, seed)
    return compare_draws(estimates, drawn, seed, len(a[0].ids))


def drawn_difference(
    a: tuple[Sequence[float], NDArray[np.float64]],
    b: tuple[Sequence[float], NDArray[np.float64]],
    images: int,
    seed: int = 0,
) -> PairedDifference:
    """`paired_difference` of numbers that were drawn before, both sides under the same draws.

    Args:
        a: First entry: each seed's number, and float64 [S, D], each seed's numbers of the draws.
        b: Second entry, likewise.
        images: How many there are.
        seed: Of the draws.
    """
    return compare_draws([np.asarray(a[0], float), np.asarray(b[0], float)], [a[1], b[1]], seed, images)


def paired_breakdown(
    a: Sequence[Result], b: Sequence[Result], kind: str, draws: int = 1000, seed: int = 0
) -> dict[str, PairedDifference]:
    """`paired_difference` for each part of the data, such as each class.

    Families of many parts need smaller p-values than draws of images can show: with one seed, where no draw lies at or
    beyond zero, the p-value is the normal tail beyond the estimate's distance from zero in standard deviations of the
    draws, if that is smaller.

    Args:
        a: First entry, one result per training seed.
        b: Second entry, likewise.
        kind: One of the results' `breakdowns`.
        draws: Bootstrap draws, at least 2.
        seed: Of the draws.

    Returns:
        A difference by part, in the results' order; parts that are undefined for either entry are left out.

    Raises:
        HarnessError: No such breakdown, no results, or results of different metrics or images.
    """
    check_sides([*a, *b], draws, [len(a), len(b)])
    require_breakdown(a[0], kind)
    images = len(a[0].ids)
    names, _ = a[0].reduce_by(kind, np.ones((1, images), np.int64))
    for other in [*a[1:], *b]:
        if other.reduce_by(kind, np.ones((1, images), np.int64))[0] != names:
            raise HarnessError(f"breakdown: the parts by {kind} differ between the entries; score both with one card")
    estimates, drawn = reduce_sides([list(a), list(b)], draws, seed, lambda result, w: result.reduce_by(kind, w)[1])
    found = {}
    for part, name in enumerate(names):
        alone = [side[:, part] for side in estimates]
        if not all(np.isfinite(side).all() for side in alone):
            continue
        outcome = compare_draws(alone, [side[:, :, part] for side in drawn], seed, images, tail=True)
        if np.isfinite([outcome.interval.low, outcome.interval.high]).all():
            found[name] = outcome
    return found


def images_needed(difference: PairedDifference) -> int | None:
    """About how many images of the same kind would tell two entries apart with 80% power, if the difference is real.

    The spread over images shrinks with the root of their number; the spread over training seeds does not.

    Returns:
        More than the present number of images; None if the interval already excludes zero, there is no difference, or
        no number of images would do (more seeds might).
    """
    d, interval = difference.difference, difference.interval
    if not (math.isfinite(d) and interval.low <= 0 <= interval.high):
        return None
    room = (d / (_Z_LEVEL + _Z_POWER)) ** 2 - difference.seed_spread**2
    if not room > 0 or not difference.image_spread > 0:
        return None
    needed = difference.images * difference.image_spread**2 / room
    return max(difference.images + 1, math.ceil(needed)) if needed < 1e12 else None


def compare_draws(
    estimates: Sequence[NDArray[np.float64]],
    drawn: Sequence[NDArray[np.float64]],
    seed: int,
    images: int,
    tail: bool = False,
) -> PairedDifference:
    """The comparison of two sides from each seed's number [S] and its draws [S, D]."""
    sizes = [len(side) for side in estimates]
    first, second = float(estimates[0].mean()), float(estimates[1].mean())
    paired = sizes[0] == sizes[1] > 1
    spread, freedom = seed_error([estimates[0] - estimates[1]] if paired else estimates)
    over_images = drawn[0].mean(axis=0) - drawn[1].mean(axis=0)
    differences = over_images + seed_noise(spread, freedom, len(over_images), seed)
    low, high = quantiles(differences)
    method = "paired bootstrap over images, percentile"
    if max(sizes) > 1:
        seeds = f"{sizes[0]} paired" if paired else f"{sizes[0]} and {sizes[1]} unpaired"
        method = f"paired two-level bootstrap over images and {seeds} seeds, percentile"
    defined = over_images[np.isfinite(over_images)]
    return PairedDifference(
        first,
        second,
        first - second,
        Interval(first - second, low, high, LEVEL, method),
        p_value_with_seeds(over_images, spread, freedom)
        if spread > 0
        else p_value(over_images, first - second if tail else None),
        images,
        min(sizes),
        paired,
        float(defined.std()) if len(defined) else math.nan,
        spread,
    )
