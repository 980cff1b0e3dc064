"""How sure a number is: bootstrap over images, and over training seeds where there are several.

One mechanism serves every metric: a draw is a weight per image (how often it was drawn), a metric reduces its
statistics under these weights. Copies of an image tie as one, so a draw never depends on how ties are broken.

Claims are made from paired differences: both entries are reduced under the same draws, so what makes an image set
hard or easy for both cancels. Sources: Efron and Tibshirani 1993, "An Introduction to the Bootstrap"; Davison and
Hinkley 1997, "Bootstrap Methods and their Application", section 5.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.evaluation.draws import draw_blocks, draw_weights
from harness.evaluation.metric import Result

__all__ = [
    "Interval",
    "PairedDifference",
    "contrast",
    "draw_weights",
    "drawn_difference",
    "entry_interval",
    "holm",
    "images_needed",
    "paired_breakdown",
    "paired_difference",
    "require_breakdown",
    "require_comparable",
    "single_interval",
]

LEVEL = 0.95
_Z_LEVEL = 1.959964  # standard normal quantile of (1 + LEVEL) / 2
_Z_POWER = 0.841621  # and of the power 0.8


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval.

    Attributes:
        estimate: The number itself.
        low: Lower end; NaN where the number is undefined.
        high: Upper end.
        level: Nominal coverage.
        method: How it was made.
    """

    estimate: float
    low: float
    high: float
    level: float
    method: str


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


def single_interval(result: Result, draws: int = 1000, seed: int = 0) -> Interval:
    """95% interval of one set of predictions' headline number.

    The estimand is the number that this very model would get on average over image sets of this size from the same
    source. Draws of images measure how the number scatters, but a number like mAP, already too high on a finite set, is
    higher still on draws from it; so the percentiles are shifted down by the bias that the draws show, their mean minus
    the estimate. A bias within its Monte Carlo error, as every plain accuracy has, is left alone.

    Measured coverage for mAP (benchmarks/evaluator_coverage.py): 0.92 with 12 boxes per category, 0.94 with 22 and with
    75, 0.96 with 160, where plain percentiles cover 0.89 to 0.91. The number on unlimited images is another estimand,
    lower than this one by about the bias again or twice; this interval covers it 0.56 to 0.79, plain percentiles 0.31
    to 0.56, and basic intervals 0.77 to 0.92. Make claims from `paired_difference`, in which the bias cancels. Ends are
    clipped to [0, 1].

    Args:
        result: Statistics of one set of predictions.
        draws: Bootstrap draws, at least 2.
        seed: Of the draws.
    """
    return entry_interval([result], draws, seed)


def entry_interval(results: Sequence[Result], draws: int = 1000, seed: int = 0) -> Interval:
    """95% interval of an entry's headline number, the mean over its training seeds.

    One seed: see `single_interval`; the interval is about these very weights. Several: a two-level bootstrap, about
    the training recipe. Images are drawn with replacement, the same for all seeds; the seeds' level is drawn from
    Student's t with their spread, because resampling three values themselves gives ten distinct means and intervals
    that are far too short.

    Args:
        results: One result per training seed, on the same images.
        draws: Bootstrap draws, at least 2.
        seed: Of the draws.

    Raises:
        HarnessError: No results, or results of different metrics or images.
    """
    _check([*results], draws)
    estimates, drawn = _reduce([list(results)], draws, seed)
    estimate = float(estimates[0].mean())
    spread, freedom = _seed_error([estimates[0]])
    means = drawn[0].mean(axis=0)
    low, high = _quantiles(means + _seed_noise(spread, freedom, draws, seed))
    bias = _bias(means, estimate)
    low, high = (float(np.clip(end - bias, 0.0, 1.0)) for end in (low, high))
    over = "images" if len(results) == 1 else f"images and {len(results)} seeds"
    return Interval(estimate, low, high, LEVEL, f"bootstrap over {over}, bias-corrected percentile")


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
    _check([*a, *b], draws, [len(a), len(b)])
    estimates, drawn = _reduce([list(a), list(b)], draws, seed)
    return _paired(estimates, drawn, seed, len(a[0].ids))


def interaction(
    first: tuple[Sequence[Result], Sequence[Result]],
    second: tuple[Sequence[Result], Sequence[Result]],
    draws: int = 1000,
    seed: int = 0,
) -> PairedDifference:
    """Whether a change does more in one setting than in another: (a - b) - (c - d) on the same images.

    As `paired_difference`, of differences: each setting's difference is taken seed by seed, so all four sides must have
    the same seeds, in the same order.

    Args:
        first: Results with the change and without it in the one setting, one per training seed.
        second: Likewise in the other.
        draws: Bootstrap draws, at least 2.
        seed: Of the draws.

    Returns:
        `a` and `b` are the differences in the two settings.

    Raises:
        HarnessError: No results, results of different metrics or images, or unequal numbers of seeds.
    """
    sides = [*first, *second]
    _check([one for side in sides for one in side], draws, [len(side) for side in sides])
    if len({len(side) for side in sides}) > 1:
        raise HarnessError(f"resampling: {[len(side) for side in sides]} seeds cannot be paired; give equal numbers")
    estimates, drawn = _reduce(sides, draws, seed)
    changes = [estimates[0] - estimates[1], estimates[2] - estimates[3]]
    return _paired(changes, [drawn[0] - drawn[1], drawn[2] - drawn[3]], seed, len(sides[0][0].ids), tail=True)


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
    return _paired([np.asarray(a[0], float), np.asarray(b[0], float)], [a[1], b[1]], seed, images)


def contrast(
    entries: Sequence[Sequence[Result]], coefficients: Sequence[float], draws: int = 1000, seed: int = 0
) -> Interval:
    """95% interval of a sum of several entries' headline numbers, each times a coefficient, on the same images.

    As `paired_difference`, which is the contrast of 1 and -1: all entries are reduced under the same draws, and their
    seeds are paired position by position.

    Args:
        entries: For each entry one result per training seed; equally many for all.
        coefficients: One per entry.
        draws: Bootstrap draws, at least 2.
        seed: Of the draws.

    Raises:
        HarnessError: No results, different numbers of seeds, or results of different metrics or images.
    """
    _check([result for entry in entries for result in entry], draws, [len(entry) for entry in entries])
    if len({len(entry) for entry in entries}) > 1:
        raise HarnessError("contrast: the entries have different numbers of seeds; give those that all of them have")
    estimates, drawn = _reduce([list(entry) for entry in entries], draws, seed)
    factors = np.array(coefficients)
    by_seed, over_images = np.tensordot(factors, estimates, 1), np.tensordot(factors, drawn, 1)
    nothing = [np.zeros_like(by_seed), np.zeros_like(over_images)]
    return _paired([by_seed, nothing[0]], [over_images, nothing[1]], seed, len(entries[0][0].ids)).interval


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
    _check([*a, *b], draws, [len(a), len(b)])
    require_breakdown(a[0], kind)
    images = len(a[0].ids)
    names, _ = a[0].reduce_by(kind, np.ones((1, images), np.int64))
    for other in [*a[1:], *b]:
        if other.reduce_by(kind, np.ones((1, images), np.int64))[0] != names:
            raise HarnessError(f"breakdown: the parts by {kind} differ between the entries; score both with one card")
    estimates, drawn = _reduce([list(a), list(b)], draws, seed, lambda result, w: result.reduce_by(kind, w)[1])
    found = {}
    for part, name in enumerate(names):
        alone = [side[:, part] for side in estimates]
        if not all(np.isfinite(side).all() for side in alone):
            continue
        outcome = _paired(alone, [side[:, :, part] for side in drawn], seed, images, tail=True)
        if np.isfinite([outcome.interval.low, outcome.interval.high]).all():
            found[name] = outcome
    return found


def _paired(
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
    spread, freedom = _seed_error([estimates[0] - estimates[1]] if paired else estimates)
    over_images = drawn[0].mean(axis=0) - drawn[1].mean(axis=0)
    differences = over_images + _seed_noise(spread, freedom, len(over_images), seed)
    low, high = _quantiles(differences)
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
        _p_value_with_seeds(over_images, spread, freedom)
        if spread > 0
        else _p_value(over_images, first - second if tail else None),
        images,
        min(sizes),
        paired,
        float(defined.std()) if len(defined) else math.nan,
        spread,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Holm 1979): p-values that may be held against one level as a family.

    Raises:
        HarnessError: A p-value is not in [0, 1].
    """
    wrong = next((p for p in p_values if not 0 <= p <= 1), None)
    if wrong is not None:
        raise HarnessError(f"p_values: {wrong} is not in [0, 1]")
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda n: p_values[n])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


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


def require_breakdown(result: Result, kind: str) -> None:
    """Refuse a kind of breakdown that a result does not have. Raises HarnessError with those there are."""
    if kind not in result.breakdowns:
        raise HarnessError(f"breakdown: {kind!r} is none of {result.metric}; it has {', '.join(result.breakdowns)}")


def require_comparable(results: Sequence[Result], sides: Sequence[int] = ()) -> None:
    """Refuse results that cannot be resampled together.

    Args:
        results: All of them.
        sides: How many belong to each entry.

    Raises:
        HarnessError: An entry has no results, or they are of different metrics or images, or of no images.
    """
    if not results or 0 in sides:
        raise HarnessError("resampling: no results were given; at least one per entry is required")
    for other in results[1:]:
        if other.metric != results[0].metric or other.version != results[0].version:
            raise HarnessError(
                f"resampling: metric {results[0].metric} version {results[0].version} cannot be compared with "
                f"{other.metric} version {other.version}"
            )
        if not np.array_equal(other.ids, results[0].ids):
            alone = np.setxor1d(other.ids, results[0].ids)[0]
            raise HarnessError(
                f"resampling: the results are not on the same images ({len(results[0].ids)} and {len(other.ids)}; "
                f"{str(alone)!r} is in one only); score both on the same images"
            )
    if not len(results[0].ids):
        raise HarnessError("resampling: the results hold no images")


def _check(results: Sequence[Result], draws: int, sides: Sequence[int] = ()) -> None:
    require_comparable(results, sides)
    if draws < 2:
        raise HarnessError(f"draws: {draws} is too few; an interval needs at least 2, and 1000 to be steady")


def _reduce(
    sides: Sequence[Sequence[Result]],
    draws: int,
    seed: int,
    number: Callable[[Result, NDArray[np.int64]], NDArray[np.float64]] = lambda result, weights: result.reduce_main(
        weights
    ),
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """For each side the number of each seed [S, ...], and the same for every draw [S, D, ...], draws in common."""
    images = len(sides[0][0].ids)
    once = np.ones((1, images), dtype=np.int64)
    estimates = [np.stack([number(result, once)[0] for result in side]) for side in sides]
    drawn = [np.empty((len(one), draws, *one.shape[1:])) for one in estimates]
    start = 0
    for weights in draw_blocks(images, draws, seed):
        for values, side in zip(drawn, sides, strict=True):
            for row, result in enumerate(side):
                values[row, start : start + len(weights)] = number(result, weights)
        start += len(weights)
    return estimates, drawn


def _seed_error(groups: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Standard error over training seeds of a mean, or of a difference of two means, and its degrees of freedom."""
    if max(map(len, groups)) < 2:
        return 0.0, math.inf
    known = {n: float(group.var(ddof=1)) for n, group in enumerate(groups) if len(group) > 1}
    if len(known) < len(groups):  # one seed only on one side: the other side's spread has to serve for both
        (variance,) = known.values()
        return math.sqrt(variance * sum(1 / len(g) for g in groups)), float(max(map(len, groups)) - 1)
    errors = [known[n] / len(group) for n, group in enumerate(groups)]
    total = sum(errors)
    if not total > 0:
        return 0.0, math.inf
    # Welch and Satterthwaite; for one group this is its size - 1
    freedom = total**2 / sum(e**2 / (len(group) - 1) for e, group in zip(errors, groups, strict=True))
    return math.sqrt(total), freedom


def _seed_noise(spread: float, freedom: float, draws: int, seed: int) -> NDArray[np.float64]:
    if not spread > 0:
        return np.zeros(draws)
    generator = np.random.default_rng([seed, 1])  # a stream of its own: the images' draws stay the same
    return spread * generator.standard_t(freedom, draws)


def _bias(draws: NDArray[np.float64], estimate: float) -> float:
    """Mean of the draws minus the estimate; 0 where that is within two standard errors of the simulation."""
    defined = draws[np.isfinite(draws)]
    if not len(defined):
        return 0.0
    bias = float(defined.mean()) - estimate
    return bias if abs(bias) > 2 * defined.std() / math.sqrt(len(defined)) else 0.0


def _quantiles(values: NDArray[np.float64]) -> tuple[float, float]:
    defined = values[np.isfinite(values)]  # a draw can leave a number undefined
    if not len(defined):
        return math.nan, math.nan
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _p_value_with_seeds(over_images: NDArray[np.float64], spread: float, freedom: float) -> float:
    """Twice the smaller share beyond zero of (draws of images) + spread · (Student's t), exact in the t."""
    from scipy.special import stdtr  # a tenth of a second that boards of single seeds need not wait

    defined = over_images[np.isfinite(over_images)] / spread
    if not len(defined):
        return 1.0
    return float(min(1.0, 2 * min(stdtr(freedom, -defined).mean(), stdtr(freedom, defined).mean())))


def _p_value(differences: NDArray[np.float64], estimate: float | None = None) -> float:
    """See `paired_difference`, and with the estimate `paired_breakdown`."""
    defined = differences[np.isfinite(differences)]
    smaller = min(np.count_nonzero(defined <= 0), np.count_nonzero(defined >= 0))
    p = min(1.0, 2 * (1 + smaller) / (1 + len(defined)))
    if estimate is None or smaller:
        return p
    spread = float(defined.std()) if len(defined) else 0.0
    return min(p, math.erfc(abs(estimate) / spread / math.sqrt(2))) if spread > 0 else p
