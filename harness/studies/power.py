"""What a study can see: how many seeds it needs before it is run, and how small a difference it could have told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.board.evidence import LEVEL

SIGNIFICANCE = 1 - LEVEL
POWER = 0.8
MOST = 1000
_ERRORS = 100  # estimates of a standard error that stand for all that seeds could give
_STEPS = 30  # halvings: to 1e-9 of a number


def seeds_needed(effect: float, spread: float, family: int = 1) -> int | None:
    """Paired seeds with which a difference is told apart with 80% power.

    The power of a two-sided paired t-test, from the noncentral t distribution (Cohen 1988 §2), at the most demanding
    level of Holm's correction. What images add to the spread is not counted: they are the same in every run.

    Args:
        effect: The true difference.
        spread: Standard deviation of the paired difference from seed to seed.
        family: How many tests are corrected together.

    Returns:
        At least 2; None if it were more than a thousand.
    """
    return next((seeds for seeds in range(2, MOST + 1) if power(effect, spread, seeds, family) >= POWER), None)


def power(effect: float, spread: float, seeds: int, family: int = 1) -> float:
    """Probability that a difference is told apart; see `seeds_needed`.

    Args:
        effect: The true difference.
        spread: Standard deviation of the paired difference from seed to seed.
        seeds: Paired seeds, at least 2.
        family: How many tests are corrected together.
    """
    from scipy.stats import nct, t

    shift = effect / spread * seeds**0.5
    limit = t.ppf(1 - SIGNIFICANCE / family / 2, seeds - 1)
    return float(nct.sf(limit, seeds - 1, shift) + nct.cdf(-limit, seeds - 1, shift))


def detectable(by_seed: Sequence[float], image_spread: float, family: int) -> float | None:
    """Smallest true difference that would have been told apart with 80% power.

    That of the study's own test, whose Student's t has as many degrees of freedom as there are seeds but one, at the
    most demanding level of Holm's correction, 0.05 / family. The scatter of seeds and of images is taken to be as it
    was found. The test does not know it: for each standard error that so many seeds could have estimated (a chi-square
    distribution) there is a smallest difference that is told apart, and the power is the probability to find more than
    that. With one seed, or where seeds do not scatter, the test is normal.

    Args:
        by_seed: The paired difference of each seed.
        image_spread: Standard deviation of the difference over draws of images.
        family: How many tests are corrected together.

    Returns:
        In the difference's unit; None where nothing varied.
    """
    from scipy.special import chdtri, ndtr, ndtri, stdtrit

    level, freedom = SIGNIFICANCE / family, len(by_seed) - 1
    error = float(np.std(by_seed, ddof=1)) / len(by_seed) ** 0.5 if freedom else 0.0
    if error < 1e-12:  # equal numbers have a spread of a few last bits
        return float(ndtri(1 - level / 2) + ndtri(POWER)) * image_spread or None
    shares = (np.arange(_ERRORS) + 0.5) / _ERRORS
    errors = error * np.sqrt(chdtri(freedom, 1 - shares) / freedom)
    limits = _smallest(
        lambda found: p_values(found, errors, freedom, image_spread) < level,
        stdtrit(freedom, 1 - level / 2) * errors + 6 * image_spread,
    )
    scatter = float(np.hypot(error, image_spread))
    found = _smallest(
        lambda true: ndtr((true - limits) / scatter).mean(keepdims=True) >= POWER, limits[-1:] + 6 * scatter
    )
    return float(found[0])


def _smallest(
    holds: Callable[[NDArray[np.float64]], NDArray[np.bool_]], high: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The smallest numbers from 0 to `high` for which something holds that holds for all larger ones, by bisection."""
    low = np.zeros_like(high)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        enough = holds(middle)
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return high


def p_values(
    difference: NDArray[np.float64], errors: NDArray[np.float64], freedom: int, image_spread: float
) -> NDArray[np.float64]:
    """As `harness.evaluation.resampling.paired_difference` has them, with the spread over images taken as normal.

    Args:
        difference: float64 [D].
        errors: float64 [D], their standard errors over seeds.
        freedom: Degrees of freedom of these.
        image_spread: Standard deviation over draws of images.
    """
    from scipy.special import stdtr

    places = np.linspace(-6, 6, 61)
    shares = np.exp(-(places**2) / 2)
    ratios = (difference[:, None] + image_spread * places) / np.maximum(errors, 1e-12)[:, None]
    smaller = np.minimum(*(stdtr(freedom, sign * ratios) @ (shares / shares.sum()) for sign in (-1, 1)))
    return np.minimum(1.0, 2 * smaller)
