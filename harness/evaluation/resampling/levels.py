"""The two levels of the bootstrap: draws of images that all results share, and the scatter of training seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.evaluation.arrays import Weights
from harness.evaluation.draws import draw_blocks
from harness.evaluation.metric import Result


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
        for name, parts in results[0].shared().items():
            if not np.array_equal(parts, other.shared()[name]):
                raise HarnessError(
                    f"resampling: {name} differ between the results, which are on the same images; score both with "
                    "one card"
                )
    if not len(results[0].ids):
        raise HarnessError("resampling: the results hold no images")


def require_breakdown(result: Result, kind: str) -> None:
    """Refuse a kind of breakdown that a result does not have. Raises HarnessError with those there are."""
    if kind not in result.breakdowns:
        raise HarnessError(f"breakdown: {kind!r} is none of {result.metric}; it has {', '.join(result.breakdowns)}")


def check_sides(results: Sequence[Result], draws: int, sides: Sequence[int] = ()) -> None:
    """As `require_comparable`; refuses too few draws, too."""
    require_comparable(results, sides)
    if draws < 2:
        raise HarnessError(f"draws: {draws} is too few; an interval needs at least 2, and 1000 to be steady")


def reduce_sides(
    sides: Sequence[Sequence[Result]],
    draws: int,
    seed: int,
    number: Callable[[Result, Weights], NDArray[np.float64]] | None = None,
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """For each side the number of each seed [S, ...], and the same for every draw [S, D, ...], draws in common.

    The number is the headline number if no other is named.
    """
    if number is None:
        estimates = [np.array([result.value for result in side]) for side in sides]
        return estimates, [np.stack([result.drawn(draws, seed) for result in side]) for side in sides]
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


def seed_error(groups: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
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


def seed_noise(spread: float, freedom: float, draws: int, seed: int) -> NDArray[np.float64]:
    """Draws of the seeds' level around 0, float64 [D]: Student's t of so many degrees of freedom, times the spread.

    They are the distribution's own quantiles in random order, one from each of D equal parts. Independent draws of so
    wide a distribution would make all intervals too long, or all too short: with three seeds, 1,000 of them put the
    ends of 95% a sixth off.
    """
    if not spread > 0:
        return np.zeros(draws)
    from scipy.special import stdtrit  # a tenth of a second that boards of single seeds need not wait

    generator = np.random.default_rng([seed, 1])  # a stream of its own: the images' draws stay the same
    quantiles: NDArray[np.float64] = stdtrit(freedom, (generator.permutation(draws) + 0.5) / draws)
    return spread * quantiles
