"""Intervals of one entry's number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.metric import Result
from harness.evaluation.resampling.levels import check_sides, reduce_sides, seed_error, seed_noise

LEVEL = 0.95


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
    check_sides([*results], draws)
    estimates, drawn = reduce_sides([list(results)], draws, seed)
    estimate = float(estimates[0].mean())
    spread, freedom = seed_error([estimates[0]])
    means = drawn[0].mean(axis=0)
    low, high = quantiles(means + seed_noise(spread, freedom, draws, seed))
    bias = _bias(means, estimate)
    low, high = (float(np.clip(end - bias, 0.0, 1.0)) for end in (low, high))
    over = "images" if len(results) == 1 else f"images and {len(results)} seeds"
    return Interval(estimate, low, high, LEVEL, f"bootstrap over {over}, bias-corrected percentile")


def quantiles(values: NDArray[np.float64]) -> tuple[float, float]:
    """Both ends of the percentile interval of draws; NaN where no draw is defined."""
    defined = values[np.isfinite(values)]  # a draw can leave a number undefined
    if not len(defined):
        return math.nan, math.nan
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _bias(draws: NDArray[np.float64], estimate: float) -> float:
    """Mean of the draws minus the estimate; 0 where that is within two standard errors of the simulation."""
    defined = draws[np.isfinite(draws)]
    if not len(defined):
        return 0.0
    bias = float(defined.mean()) - estimate
    return bias if abs(bias) > 2 * defined.std() / math.sqrt(len(defined)) else 0.0
