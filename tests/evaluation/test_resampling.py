from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from coco_oracle import random_data
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from harness.errors import HarnessError
from harness.evaluation import detection
from harness.evaluation import draws as draws_module
from harness.evaluation.classification import ClassificationResult, evaluate
from harness.evaluation.metric import Result
from harness.evaluation.resampling import (
    LEVEL,
    draw_weights,
    entry_interval,
    holm,
    images_needed,
    paired_difference,
    paired_sums,
    single_interval,
)
from harness.evaluation.resampling.differences import compare_draws


def accuracy(correct: NDArray[np.bool_], ids: list[str] | None = None) -> ClassificationResult:
    """A result whose headline number is the mean of `correct`."""
    return evaluate(np.zeros(len(correct), np.int64), np.where(correct, 0, 1), ids, ["right", "wrong"])


def noisy(difficulty: NDArray[np.float64], skill: float, generator: np.random.Generator) -> ClassificationResult:
    return accuracy(difficulty + generator.normal(0, 1, len(difficulty)) < skill)


def test_a_draw_counts_as_many_images_as_there_are_and_the_seed_fixes_it() -> None:
    weights = draw_weights(50, 300, 7)
    assert weights.shape == (300, 50)
    assert weights.dtype == np.int64
    assert (weights.sum(axis=1) == 50).all()
    assert np.array_equal(weights, draw_weights(50, 300, 7))
    assert np.array_equal(weights[:10], draw_weights(50, 10, 7))
    assert not np.array_equal(weights, draw_weights(50, 300, 8))
    assert draw_weights(50, 0, 7).shape == (0, 50)


def test_draws_have_the_moments_of_sampling_with_replacement() -> None:
    weights = draw_weights(40, 4000, 0)
    assert weights.mean() == 1
    assert weights.var() == pytest.approx(1 - 1 / 40, abs=0.02)
    assert np.corrcoef(weights[:, 0], weights[:, 1])[0, 1] == pytest.approx(-1 / 39, abs=0.05)


def test_the_interval_of_an_accuracy_has_the_binomial_width() -> None:
    interval = single_interval(accuracy(np.arange(1000) < 700), draws=4000)
    spread = 1.96 * math.sqrt(0.7 * 0.3 / 1000)
    assert interval.estimate == 0.7
    assert (interval.low, interval.high) == (
        pytest.approx(0.7 - spread, abs=0.004),
        pytest.approx(0.7 + spread, abs=0.004),
    )
    assert interval.level == LEVEL
    assert interval == accuracy(np.arange(1000) < 700).interval(draws=4000)


def test_an_interval_stays_within_fractions() -> None:
    interval = single_interval(accuracy(np.arange(30) < 29))
    assert 0 <= interval.low < interval.high <= 1
    assert single_interval(accuracy(np.ones(5, bool))).low == 1


def test_the_bias_of_map_is_taken_out() -> None:
    result = detection.evaluate(*random_data(0, 60, 40))
    interval = single_interval(result, draws=500)
    drawn = result.reduce_main(draw_weights(6, 500, 0))
    drawn = drawn[np.isfinite(drawn)]
    bias = drawn.mean() - interval.estimate
    assert abs(bias) > 0.01
    assert interval.low == pytest.approx(max(0.0, np.quantile(drawn, 0.025) - bias), abs=1e-12)


def test_one_seed_is_the_single_interval_and_more_seeds_add_their_spread() -> None:
    generator = np.random.default_rng(0)
    difficulty = generator.normal(size=400)
    seeds = [noisy(difficulty, skill, generator) for skill in (0.2, 0.5, 0.8)]
    assert entry_interval(seeds[:1]) == single_interval(seeds[0])
    several = entry_interval(seeds)
    assert several.estimate == pytest.approx(np.mean([s.top1 for s in seeds]))
    single = single_interval(seeds[1])
    assert several.high - several.low > 2 * (single.high - single.low)
    assert "3 seeds" in several.method


def test_a_difference_and_its_mirror_image_agree() -> None:
    generator = np.random.default_rng(1)
    difficulty = generator.normal(size=300)
    a, b = ([noisy(difficulty, skill, generator)] for skill in (0.5, 0.2))
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert there.difference == -back.difference == there.a - there.b
    assert there.interval.low == pytest.approx(-back.interval.high, abs=1e-12)
    assert there.p_value == back.p_value
    assert there.images == 300
    assert not there.paired_seeds


def test_identical_entries_have_no_difference_and_a_p_value_of_one() -> None:
    result = [accuracy(np.arange(100) < 60)]
    found = paired_difference(result, result)
    assert (found.difference, found.interval.low, found.interval.high, found.p_value) == (0, 0, 0, 1)
    assert images_needed(found) is None


def test_pairing_by_image_is_sharper_than_two_separate_intervals() -> None:
    generator = np.random.default_rng(2)
    difficulty = 3 * generator.normal(size=1000)
    a, b = (noisy(difficulty, skill, generator) for skill in (0.3, 0.0))
    paired = paired_difference([a], [b]).interval
    alone = [single_interval(one) for one in (a, b)]
    separate = math.hypot(*(interval.high - interval.low for interval in alone))
    assert paired.high - paired.low < 0.7 * separate


def test_seeds_that_differ_alike_on_both_sides_cancel_when_they_are_paired() -> None:
    generator = np.random.default_rng(3)
    difficulty, noise = generator.normal(size=2000), generator.normal(size=2000)
    skills = [0.0, 0.6, 1.2]
    a = [accuracy(difficulty + noise < skill + 0.15) for skill in skills]
    b = [accuracy(difficulty + noise < skill) for skill in skills]
    paired = paired_difference(a, b)
    unpaired = paired_difference(a, [*b, b[1]])
    assert paired.paired_seeds
    assert not unpaired.paired_seeds
    assert paired.p_value < 0.05 < unpaired.p_value
    assert (paired.seeds, unpaired.seeds) == (3, 3)
    assert images_needed(unpaired) is None  # the spread is the seeds', and more images would not shrink it


def test_where_images_add_nothing_the_p_value_of_several_seeds_is_that_of_a_paired_t_test() -> None:
    a, b = np.array([0.74, 0.71, 0.76, 0.73]), np.array([0.70, 0.69, 0.70, 0.71])
    found = compare_draws([a, b], [np.repeat(side[:, None], 500, axis=1) for side in (a, b)], seed=0, images=100)
    assert found.p_value == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-9)


def test_where_images_add_nothing_the_interval_of_several_seeds_is_that_of_a_paired_t_test() -> None:
    a, b = np.array([0.62, 0.58, 0.60]), np.array([0.55, 0.57, 0.56])
    exact = stats.ttest_rel(a, b).confidence_interval(0.95)
    for seed in range(5):
        found = compare_draws([a, b], [np.repeat(side[:, None], 1000, axis=1) for side in (a, b)], seed, images=100)
        assert (found.interval.low, found.interval.high) == pytest.approx(
            (exact.low, exact.high), abs=0.0015
        )  # of 0.15


def test_the_p_value_of_several_seeds_is_the_share_beyond_zero_of_images_and_seeds_together() -> None:
    generator = np.random.default_rng(5)
    a, b = np.array([0.62, 0.58, 0.60]), np.array([0.55, 0.57, 0.56])
    noise = generator.normal(0, 0.02, 4000)
    found = compare_draws([a, b], [a[:, None] + noise, np.repeat(b[:, None], 4000, axis=1)], seed=0, images=100)
    spread = (a - b).std(ddof=1) / 3**0.5
    drawn = 0.04 + np.tile(noise, 500) + spread * generator.standard_t(2, 2_000_000)
    assert found.p_value == pytest.approx(2 * (drawn <= 0).mean(), rel=0.02)


def test_several_seeds_can_pass_the_correction_of_a_large_family() -> None:
    a, b = (np.array(side) for side in ([0.80, 0.81, 0.80, 0.79, 0.80], [0.60, 0.61, 0.60, 0.59, 0.61]))
    found = compare_draws([a, b], [np.repeat(side[:, None], 1000, axis=1) for side in (a, b)], seed=0, images=100)
    assert found.p_value * 500 < 0.05  # 1,000 draws alone would show nothing below 0.002


def test_an_interaction_is_the_paired_difference_of_two_differences() -> None:
    generator = np.random.default_rng(8)
    sides = [[accuracy(generator.random(200) < rate) for _ in range(3)] for rate in (0.8, 0.5, 0.6, 0.55)]
    a, b, c, d = ([one.reduce()["top1"] for one in side] for side in sides)
    found = paired_sums([(1, sides[0]), (-1, sides[1])], [(1, sides[2]), (-1, sides[3])])
    by_seed = np.array(a) - b - np.array(c) + d
    assert found.difference == pytest.approx(by_seed.mean())
    assert (found.a, found.b) == (pytest.approx(np.mean(a) - np.mean(b)), pytest.approx(np.mean(c) - np.mean(d)))
    assert found.seed_spread == pytest.approx(by_seed.std(ddof=1) / 3**0.5)
    plain = paired_difference(sides[0], sides[1])
    same = paired_sums(
        [(1, sides[0]), (-1, sides[1])], [(1, sides[2]), (-1, sides[2])]
    )  # nothing happens in the other setting
    assert (same.interval.low, same.interval.high) == pytest.approx((plain.interval.low, plain.interval.high))
    with pytest.raises(HarnessError, match="cannot be paired"):
        paired_sums([(1, sides[0]), (-1, sides[1])], [(1, sides[2]), (-1, sides[3][:2])])


def test_images_needed_is_about_what_the_formula_of_a_mean_says() -> None:
    # Two entries that disagree on 100 of 1000 images, 55 to 45: difference 0.01, variance per image about 0.1.
    a, b = np.zeros(1000, bool), np.zeros(1000, bool)
    a[:55], b[55:100] = True, True
    found = paired_difference([accuracy(a)], [accuracy(b)], draws=4000)
    expected = (1.96 + 0.84) ** 2 * (0.1 - 0.01**2) / 0.01**2
    assert images_needed(found) == pytest.approx(expected, rel=0.1)


def test_an_entry_that_is_told_apart_needs_no_more_images() -> None:
    found = paired_difference([accuracy(np.arange(100) < 90)], [accuracy(np.arange(100) < 50)])
    assert found.p_value < 0.01
    assert images_needed(found) is None


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([], []),
        ([0.2], [0.2]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.5, 0.9, 0.01], [1.0, 1.0, 0.03]),
    ],
)
def test_holm_of_cases_worked_out_by_hand(p_values: list[float], adjusted: list[float]) -> None:
    assert holm(p_values) == pytest.approx(adjusted)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(p_values=st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_lies_between_no_correction_and_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= min(1.0, len(p_values) * p)
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


def test_the_same_seed_gives_the_same_outcome_and_another_a_close_one() -> None:
    generator = np.random.default_rng(4)
    difficulty = generator.normal(size=500)
    a, b = [noisy(difficulty, 0.5, generator)], [noisy(difficulty, 0.4, generator)]
    assert paired_difference(a, b, seed=3) == paired_difference(a, b, seed=3)
    first, second = paired_difference(a, b, seed=3), paired_difference(a, b, seed=4)
    assert first.interval.low != second.interval.low
    assert first.interval.low == pytest.approx(second.interval.low, abs=0.01)


def test_draws_that_leave_the_number_undefined_are_left_out() -> None:
    truth, results = random_data(0, 20, 1)
    truth["annotations"][0]["iscrowd"] = 0
    truth["annotations"][0]["area"] = 500
    result = detection.evaluate(truth, results)
    interval = single_interval(result, draws=200)  # a draw without the one annotated image has no AP
    assert np.isfinite([interval.low, interval.high]).all()
    nothing = detection.evaluate({**truth, "annotations": []}, results)
    assert np.isnan([single_interval(nothing).low, single_interval(nothing).estimate]).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: entry_interval([]), "no results were given"),
        (lambda: paired_difference([], [accuracy(np.ones(3, bool))]), "no results were given"),
        (
            lambda: paired_difference([accuracy(np.ones(3, bool))], [accuracy(np.ones(4, bool))]),
            "not on the same images",
        ),
        (
            lambda: entry_interval([accuracy(np.ones(1, bool), ["a"]), accuracy(np.ones(1, bool), ["b"])]),
            "'a' is in one",
        ),
        (lambda: single_interval(accuracy(np.ones(3, bool)), draws=1), "draws: 1 is too few"),
        (lambda: holm([0.5, float("nan")]), "nan is not in"),
        (lambda: holm([1.5]), "1.5 is not in"),
        (
            lambda: paired_difference([accuracy(np.ones(3, bool))], [detection.evaluate(*random_data(0, 3, 3))]),
            "metric top1 version 1 cannot be compared with coco_bbox version 1",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call: Any, words: str) -> None:
    with pytest.raises(HarnessError, match=words):
        call()


def rejection_rate(seeds: tuple[int, int], seed_spread: float, trials: int) -> float:
    """How often two entries of equal skill are told apart at 0.05."""
    generator = np.random.default_rng(0)
    rejected = 0
    for trial in range(trials):
        difficulty = generator.normal(size=300)
        sides: list[list[Result]] = [
            [noisy(difficulty, 0.5 + generator.normal(0, seed_spread), generator) for _ in range(count)]
            for count in seeds
        ]
        rejected += paired_difference(*sides, draws=200, seed=trial).p_value < 0.05
    return rejected / trials


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds", "seed_spread"), [((1, 1), 0.0), ((3, 3), 0.0), ((3, 3), 0.5), ((2, 2), 0.5), ((5, 5), 0.2), ((3, 5), 0.3)]
)
def test_equal_entries_are_told_apart_no_more_often_than_the_level_says(
    seeds: tuple[int, int], seed_spread: float
) -> None:
    # 0.05 + three standard errors of 400 trials
    assert rejection_rate(seeds, seed_spread, 400) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


@pytest.mark.slow
def test_intervals_of_map_cover_its_mean_over_image_sets_and_paired_ones_the_true_difference() -> None:
    """Image sets of 75 out of a source of 1,500: 22 boxes per category, where the bias of mAP is largest."""
    generator = np.random.default_rng(0)
    source, size, samples, draws = 1500, 75, 150, 200
    truth, good, bad = _source(generator, source)
    values, intervals, percentiles, differences = [], [], [], []
    ids = np.arange(1, source + 1)
    for _ in range(samples):
        chosen = np.sort(generator.choice(ids, size, replace=False)).tolist()
        a, b = (detection.evaluate(truth, results, chosen) for results in (good, bad))
        seed = int(generator.integers(2**31))
        interval, paired = single_interval(a, draws, seed), paired_difference([a], [b], draws, seed)
        values.append((paired.a, paired.difference))
        intervals.append((interval.low, interval.high))
        differences.append((paired.interval.low, paired.interval.high))
        percentiles.append(np.quantile(a.reduce_main(draw_weights(size, draws, seed)), [0.025, 0.975]))
    value, difference = np.mean(values, axis=0)

    def covered(bounds: Any, number: float) -> float:
        low, high = np.array(bounds).T
        return float(np.mean((low <= number) & (number <= high)))

    # 0.95 - 2.5 standard errors of 150 samples is 0.905
    assert covered(intervals, value) > 0.9
    assert covered(differences, difference) > 0.9
    # why the correction is made: draws lie on one side of the estimate
    low, high = np.array(percentiles).T
    assert np.mean(low > value) > 3 * np.mean(high < value)


def test_the_interval_of_a_map_is_centred_on_the_estimate_and_not_on_the_draws_above_it() -> None:
    truth, good, _ = _source(np.random.default_rng(1), 60)
    result = detection.evaluate(truth, good)
    interval = single_interval(result, draws=300)
    drawn = result.reduce_main(draw_weights(60, 300, 0))
    assert drawn.mean() > interval.estimate + 0.005
    assert (interval.low + interval.high) / 2 == pytest.approx(interval.estimate, abs=0.004)


def test_draws_are_made_once_for_all_entries_on_the_same_images() -> None:
    (first,) = draws_module.draw_blocks(30, 200, 5)
    (again,) = draws_module.draw_blocks(30, 200, 5)
    assert np.shares_memory(first, again)
    assert first.dtype == np.uint8
    assert np.array_equal(draw_weights(30, 200, 5), first)


@pytest.mark.parametrize("blocks", [draws_module.draw_blocks, draws_module.swap_blocks])
@pytest.mark.parametrize("cells", [1, 1 << 17])
def test_draws_do_not_depend_on_how_many_are_made_at_once(
    monkeypatch: pytest.MonkeyPatch, blocks: Any, cells: int
) -> None:
    expected = np.concatenate(list(blocks(7, 300, 5)))
    monkeypatch.setattr(draws_module, "_CELLS", cells)
    monkeypatch.setattr(draws_module, "_KEPT_BYTES", 0)  # nor on whether they are kept
    assert np.array_equal(np.concatenate(list(blocks(7, 300, 5))), expected)
    assert len(expected) == 300


def _source(generator: np.random.Generator, images: int) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """Ground truth with 10 categories, and the results of a good and a worse detector."""
    truth: dict[str, Any] = {
        "images": [{"id": n + 1} for n in range(images)],
        "categories": [{"id": k, "name": str(k)} for k in range(10)],
        "annotations": [],
    }
    results: tuple[list[Any], list[Any]] = ([], [])
    for image in range(1, images + 1):
        for _ in range(3):
            category, corner, side = (
                int(generator.integers(10)),
                generator.random(2) * 400,
                20 + generator.random(2) * 80,
            )
            box = [*corner.tolist(), *side.tolist()]
            number = len(truth["annotations"]) + 1
            common = {"image_id": image, "category_id": category}
            truth["annotations"].append({**common, "id": number, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
            for results_of, spread in zip(results, (0.06, 0.09), strict=True):
                moved = np.array(box) + generator.normal(0, spread, 4) * [*side, *side]
                score = float(generator.normal(1, 1))
                results_of.append({**common, "bbox": np.maximum(moved, 1).tolist(), "score": score})
        for results_of in results:
            for _ in range(6):
                box = [*(generator.random(2) * 400).tolist(), *(20 + generator.random(2) * 80).tolist()]
                category, score = int(generator.integers(10)), float(generator.normal(-0.5, 1))
                results_of.append({"image_id": image, "category_id": category, "bbox": box, "score": score})
    return truth, *results
