"""The mean drop and the train gap, by hand and against the paired bootstrap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from harness.errors import HarnessError
from harness.evaluation import classification
from harness.evaluation.classification import ClassificationResult
from harness.evaluation.draws import draw_weights
from harness.evaluation.drops import mean_drop, train_gap
from harness.evaluation.resampling import drawn_difference, paired_difference


def result(correct: Sequence[bool], prefix: str = "") -> ClassificationResult:
    labels = np.arange(len(correct)) % 3
    predicted = np.where(correct, labels, (labels + 1) % 3)
    ids = [f"{prefix}{number:04d}" for number in range(len(correct))]
    return classification.evaluate(labels, predicted, ids, classes=["a", "b", "c"])


def random(share: float, count: int, seed: int) -> ClassificationResult:
    return result((np.random.default_rng(seed).random(count) < share).tolist())


def test_the_drop_is_clean_minus_the_mean_over_versions_and_the_relative_one_its_share_of_clean() -> None:
    clean, first, second = result([True] * 8 + [False] * 2), result([True] * 6 + [False] * 4), result([False] * 10)
    drop = mean_drop(clean, [first, second])
    assert drop.values == [0.6, 0.0]
    assert drop.drop == pytest.approx(0.8 - 0.3)
    assert drop.relative == pytest.approx(0.5 / 0.8)  # not of the corrupted number, which would be 1.67
    assert np.isnan(mean_drop(second, [first]).relative)


def test_one_version_has_the_interval_of_the_paired_difference() -> None:
    clean, version = random(0.8, 120, 1), random(0.6, 120, 2)
    drop, paired = mean_drop(clean, [version]), paired_difference([clean], [version])
    assert drop.drop == pytest.approx(paired.difference)
    assert (drop.interval.low, drop.interval.high) == pytest.approx((paired.interval.low, paired.interval.high))


def test_clean_and_corrupted_images_are_drawn_together() -> None:
    clean = random(0.5, 200, 3)
    drop = mean_drop(clean, [clean, clean])
    assert (drop.drop, drop.interval.low, drop.interval.high) == (0, 0, 0)  # drawn apart it would be about ±0.1
    assert not drop.draws.any()


def test_drops_of_two_entries_pair_draw_by_draw() -> None:
    """The difference of drops under common draws is what a bootstrap of all four results together would give."""
    a, b = (random(0.9, 150, 1), random(0.5, 150, 2)), (random(0.8, 150, 3), random(0.7, 150, 4))
    one, other = mean_drop(a[0], [a[1]]), mean_drop(b[0], [b[1]])
    found = drawn_difference(([one.drop], one.draws[None]), ([other.drop], other.draws[None]), 150)
    weights = draw_weights(150, 1000, 0)
    drawn = (
        a[0].reduce_main(weights) - a[1].reduce_main(weights) - b[0].reduce_main(weights) + b[1].reduce_main(weights)
    )
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))
    assert found.difference == pytest.approx(one.drop - other.drop)


def test_several_seeds_widen_the_interval_by_their_spread() -> None:
    drops = [mean_drop(random(0.9, 150, seed), [random(0.3 + 0.1 * seed, 150, seed + 10)]) for seed in range(3)]
    side = [one.drop for one in drops], np.stack([one.draws for one in drops])
    nothing = [0.0] * 3, np.zeros((3, 1000))
    several = drawn_difference(side, nothing, 150).interval
    single = drops[0].interval
    assert several.estimate == pytest.approx(np.mean(side[0]))
    assert several.high - several.low > single.high - single.low


def test_versions_of_other_images_are_refused_and_so_are_none() -> None:
    with pytest.raises(HarnessError, match="not on the same images"):
        mean_drop(result([True] * 4), [result([True] * 4, "other-")])
    with pytest.raises(HarnessError, match="no results"):
        mean_drop(result([True] * 4), [])


def test_the_gap_is_train_minus_test_and_the_two_sides_are_drawn_independently() -> None:
    train, test = random(0.9, 400, 1), random(0.7, 400, 2)
    gap = train_gap(train, test)
    assert gap.gap == pytest.approx(train.reduce()["top1"] - test.reduce()["top1"])
    assert gap.gap > 0  # above 0 where what was seen is known better
    assert gap.draws.std() == pytest.approx((gap.interval.high - gap.interval.low) / 2 / 1.96, rel=0.1)
    # Equal marks at equal places: under common draws nothing would be left of the uncertainty.
    same = train_gap(train, result(_marks(train)))
    expected = 1.96 * np.sqrt(2 * 0.9 * 0.1 / 400)
    assert (same.interval.high - same.interval.low) / 2 == pytest.approx(expected, rel=0.15)


def _marks(one: ClassificationResult) -> list[bool]:
    each = np.eye(len(one.ids), dtype=np.int64)
    return [bool(value) for value in one.reduce_main(each)]
