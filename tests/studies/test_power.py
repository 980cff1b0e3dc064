"""What a study could have seen: held against its own test, made many times over."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import nct, norm, t

from harness.board.text import DASH
from harness.evaluation.resampling import drawn_difference
from harness.studies.contrasts import corrected, shown_detectable
from harness.studies.power import detectable, p_values

STUDIES = 1500


def told_apart(true: float, spread: float, image_spread: float, seeds: int, level: float) -> float:
    """How often the board's test of a true difference comes out below a level."""
    generator = np.random.default_rng([seeds, 5])
    images = image_spread * norm.ppf((np.arange(400) + 0.5) / 400)
    zero = np.zeros(seeds), np.zeros((seeds, 1))
    below = 0
    for _ in range(STUDIES):
        by_seed = generator.normal(true, spread, seeds) + generator.normal(0, image_spread)
        drawn = by_seed[:, None] + images
        below += drawn_difference((by_seed, drawn), zero, 500).p_value < level
    return below / STUDIES


@pytest.mark.parametrize(("seeds", "image_spread"), [(3, 0.0), (3, 0.6), (5, 0.3), (5, 1.5)])
@pytest.mark.parametrize("family", [1, 20])
def test_the_boards_own_test_tells_a_detectable_difference_apart_in_80_percent(
    seeds: int, image_spread: float, family: int
) -> None:
    by_seed = np.linspace(-1, 1, seeds)
    spread = float(by_seed.std(ddof=1))
    found = detectable(by_seed, image_spread, family)
    assert found is not None
    share = told_apart(found, spread, image_spread, seeds, 0.05 / family)
    assert share == pytest.approx(0.8, abs=0.035)


def test_without_spread_over_images_it_is_the_t_tests_power() -> None:
    by_seed = [0.1, 0.4, 0.3]
    found = detectable(by_seed, 0.0, 10)
    assert found is not None
    limit, shift = t.ppf(1 - 0.05 / 20, 2), found / np.std(by_seed, ddof=1) * 3**0.5
    assert nct.sf(limit, 2, shift) == pytest.approx(0.8, abs=0.005)


def test_one_seed_or_seeds_that_do_not_scatter_leave_the_images_alone() -> None:
    normal = (norm.ppf(1 - 0.05 / 8) + norm.ppf(0.8)) * 0.3
    assert detectable([0.7], 0.3, 4) == pytest.approx(normal)
    assert detectable([0.7, 0.7, 0.7], 0.3, 4) == pytest.approx(normal)
    assert detectable([0.0, 0.0], 0.0, 4) is None


def test_few_seeds_in_a_large_family_see_little() -> None:
    rows = [
        {"by_seed": by_seed, "image_spread": 0.01, "difference": 0.05, "p_value": 0.01}
        for by_seed in ([0.04, 0.05, 0.06], [0.03, 0.04, 0.05, 0.06, 0.07], [-0.15, 0.05, 0.25], [0.05, 0.05])
    ] * 30
    three, five, wide, still = corrected(rows)[:4]
    assert three["detectable"] > 2 * five["detectable"]  # although the three scatter less
    assert shown_detectable(wide) == "over 100"  # no accuracy is so high
    assert shown_detectable(still) == "4.37"
    assert shown_detectable({"detectable": None}) == DASH


def test_p_values_are_those_of_the_paired_test() -> None:
    by_seed = np.array([0.2, 0.5, 0.9, 0.4])
    drawn = by_seed[:, None] + 0.3 * norm.ppf((np.arange(4000) + 0.5) / 4000)
    expected = drawn_difference((by_seed, drawn), (np.zeros(4), np.zeros((4, 1))), 500).p_value
    error = by_seed.std(ddof=1, keepdims=True) / 2
    assert p_values(by_seed.mean(keepdims=True), error, 3, 0.3)[0] == pytest.approx(expected, rel=0.01)
