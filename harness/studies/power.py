"""How many seeds a study needs, before it is run."""

from __future__ import annotations

from harness.studies.contrasts import POWER, SIGNIFICANCE

MOST = 1000


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
