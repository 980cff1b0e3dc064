from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from coco_oracle import official, random_data
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.evaluation import classification, detection, permutation, segmentation, vqa
from harness.evaluation.label_map import LabelClass, LabelMap
from harness.evaluation.permutation import permutation_p_value, permutation_p_values_by, swapped_differences


def accuracy(correct: Any) -> classification.ClassificationResult:
    right = np.asarray(correct, bool)
    return classification.evaluate(np.zeros(len(right), np.int64), np.where(right, 0, 1), None, ["right", "wrong"])


def every_swap(images: int) -> NDArray[np.int64]:
    return np.array(list(itertools.product((0, 1), repeat=images)))


def physically(score: Callable[[list[int], list[int]], float], swaps: NDArray[np.int64]) -> list[float]:
    """Differences by scoring, for each swap, two sets of predictions: of each image side 0's or side 1's."""
    return [score(swap.tolist(), (1 - swap).tolist()) for swap in swaps]


def test_top1_of_a_case_worked_out_by_hand() -> None:
    # A is right on images 0 and 1, B on 2: 3 images differ, so swaps give +-3/4 twice and +-1/4 six times of eight
    a, b = accuracy([1, 1, 0, 1]), accuracy([0, 0, 1, 1])
    found = swapped_differences([a], [b], every_swap(4))
    assert sorted(np.round(4 * found).astype(int).tolist()) == [-3] * 2 + [-1] * 6 + [1] * 6 + [3] * 2
    assert found[0] == 0.25
    # all swaps are at least as far from 0 as the observed 1/4; and of A right on three against none 1/4 of them are
    assert permutation_p_value([a], [b], draws=500) == 1
    clear = permutation_p_value([accuracy([1, 1, 1, 1])], [accuracy([0, 0, 0, 1])], draws=4000)
    assert clear == pytest.approx(1 / 4, abs=0.03)


def test_map_of_every_swap_is_that_of_the_swapped_results_files() -> None:
    images = 5
    truth, results = random_data(3, 120, 25, images)
    ids = [image["id"] for image in truth["images"]]
    # ids whose order as numbers is not that as text, and scores that tie between images
    sides = [results[::2], results[1::2]]
    renamed = dict(zip(ids, [9, 10, 100, 11, 2], strict=True))
    for entries, key in (
        (truth["images"], "id"),
        (truth["annotations"], "image_id"),
        *((s, "image_id") for s in sides),
    ):
        for entry in entries:
            entry[key] = renamed[entry[key]]
    a, b = (detection.evaluate(truth, side) for side in sides)

    def mixed(swap: list[int]) -> float:
        chosen = dict(zip(a.ids.tolist(), swap, strict=True))
        kept = [one for side in (0, 1) for one in sides[side] if chosen[str(one["image_id"])] == side]
        return float(official(truth, kept).stats[0])

    swaps = every_swap(images)
    expected = physically(lambda first, second: mixed(first) - mixed(second), swaps)
    assert len(set(np.round(expected, 6))) > 8
    assert swapped_differences([a], [b], swaps) == pytest.approx(expected, abs=1e-12)


def test_miou_of_every_swap_is_that_of_the_swapped_label_maps() -> None:
    generator = np.random.default_rng(0)
    label_map = LabelMap(tuple(LabelClass(name, n) for n, name in enumerate("abcd")))
    truth = [generator.integers(0, 4, (3, 5)).astype(np.uint8) for _ in range(5)]
    sides = [
        [
            np.where(generator.random((3, 5)) < share, one, generator.integers(0, 4, (3, 5))).astype(np.uint8)
            for one in truth
        ]
        for share in (0.7, 0.4)
    ]
    a, b = (segmentation.evaluate(truth, side, label_map) for side in sides)

    def mixed(swap: list[int]) -> float:
        return segmentation.evaluate(truth, [sides[side][n] for n, side in enumerate(swap)], label_map).miou

    swaps = every_swap(5)
    expected = physically(lambda first, second: mixed(first) - mixed(second), swaps)
    found = swapped_differences([a], [b], swaps)
    assert found == pytest.approx(expected, abs=1e-12)
    assert found[0] == pytest.approx(a.miou - b.miou, abs=1e-12)
    exact = np.mean(np.abs(expected) >= abs(expected[0]) - 1e-12)
    assert permutation_p_value([a], [b], draws=3000) == pytest.approx(exact, abs=0.03)


def test_vqa_swaps_an_image_with_all_its_questions() -> None:
    asked = {"questions": [{"question_id": n, "image_id": n // 2, "question": "?"} for n in range(6)]}
    people = [{"answer": "yes"}] * 10
    annotations = {
        "annotations": [
            {"question_id": n, "answer_type": "yes/no", "question_type": "is", "answers": people} for n in range(6)
        ]
    }
    sides = [["yes", "yes", "yes", "no", "no", "no"], ["no", "no", "no", "no", "yes", "no"]]
    a, b = (
        vqa.evaluate(asked, annotations, [{"question_id": n, "answer": text} for n, text in enumerate(side)])
        for side in sides
    )
    # by image A has 2, 1 and 0 right, B 0, 0 and 1: differences 2, 1 and -1 of six questions with free signs
    expected = [(x * 2 + y - z) / 6 for x, y, z in itertools.product((1, -1), repeat=3)]
    assert swapped_differences([a], [b], every_swap(3)) == pytest.approx(expected, abs=1e-12)


def test_sums_over_images_give_the_numbers_of_mixed_sets_to_the_bit() -> None:
    generator = np.random.default_rng(2)
    label_map = LabelMap(tuple(LabelClass(name, n) for n, name in enumerate("abcd")))
    truth = [generator.integers(0, 4, (3, 5)).astype(np.uint8) for _ in range(40)]
    maps = [[np.where(generator.random((3, 5)) < 0.6, one, 0).astype(np.uint8) for one in truth] for _ in range(2)]
    pairs = [
        [accuracy(generator.integers(0, 2, 40).tolist()) for _ in range(2)],
        [segmentation.evaluate(truth, side, label_map) for side in maps],
    ]
    swaps = generator.integers(0, 2, (50, 40))
    for a, b in pairs:
        pool = permutation._Pool(a, b, lambda result, weights: result.reduce_main(weights)[:, None])
        assert np.array_equal(swapped_differences([a], [b], swaps), pool.differences(swaps)[:, 0])


def test_paired_seeds_swap_an_image_together_and_count_by_their_mean() -> None:
    a = [accuracy([1, 1, 0]), accuracy([1, 0, 1])]
    b = [accuracy([0, 1, 0]), accuracy([0, 0, 0])]
    # image differences 1, 0, 0 and 1, 0, 1: their means 1, 0 and 1/2 with free signs, over three images
    expected = [(x + z / 2) / 3 for x, _, z in itertools.product((1, -1), repeat=3)]
    assert swapped_differences(a, b, every_swap(3)) == pytest.approx(expected, abs=1e-12)


def test_a_tail_goes_on_where_no_swap_comes_up_to_the_difference() -> None:
    a, b = accuracy([1] * 200), accuracy([1] * 160 + [0] * 40)
    assert permutation_p_value([a], [b], 999) == 1 / 1000
    # 40 free signs: the sum's standard deviation is the root of 40, the exact p-value 2 / 2**40
    tail = permutation_p_value([a], [b], 4000, tail=True)
    assert math.log10(tail) == pytest.approx(math.log10(math.erfc(math.sqrt(40) / math.sqrt(2))), abs=1)
    assert permutation_p_value([b], [a], 4000, tail=True) == tail
    # where swaps do come up to it, nothing is extrapolated
    near = accuracy([1] * 195 + [0] * 5)
    assert permutation_p_value([a], [near], 500, tail=True) == permutation_p_value([a], [near], 500) > 1 / 32


def test_a_tail_never_goes_below_what_the_images_can_show() -> None:
    a, b = accuracy([1] * 9), accuracy([0] * 9)
    found = [permutation_p_value([a], [b], 20, seed, tail=True) for seed in range(30)]
    assert min(found) >= 2.0**-8


def test_parts_are_tested_as_if_each_were_alone() -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 3, 90)
    sides = [np.where(generator.random(90) < share, labels, (labels + 1) % 3) for share in (0.8, 0.7)]
    sides[1] = np.where(labels == 2, 0, sides[1])  # B never finds the third class
    a, b = (classification.evaluate(labels, side, None, ["x", "y", "z"]) for side in sides)
    found = permutation_p_values_by([a], [b], "class", 500)
    assert list(found) == ["x", "y", "z"]
    assert found["z"] < 1e-4 < 0.05 < min(found["x"], found["y"])
    of_class = labels == 0
    alone = [accuracy((side == labels)[of_class]) for side in sides]
    assert found["x"] == pytest.approx(permutation_p_value([alone[0]], [alone[1]], 4000), abs=0.08)
    with pytest.raises(HarnessError, match="breakdown: 'size' is none of"):
        permutation_p_values_by([a], [b], "size")


def test_the_same_seed_gives_the_same_p_and_turning_around_does_not_change_it() -> None:
    generator = np.random.default_rng(0)
    a, b = [accuracy(generator.random(200) < 0.6)], [accuracy(generator.random(200) < 0.55)]
    first = permutation_p_value(a, b, draws=300, seed=5)
    assert first == permutation_p_value(a, b, draws=300, seed=5) == permutation_p_value(b, a, draws=300, seed=5)
    assert len({permutation_p_value(a, b, draws=300, seed=seed) for seed in range(6)}) > 1


def test_equal_entries_get_one_and_p_is_never_zero() -> None:
    a, b = [accuracy(np.arange(500) < 400)], [accuracy(np.arange(500) < 100)]
    assert permutation_p_value(a, a, draws=99) == 1
    assert permutation_p_value(a, b, draws=99) == 0.01
    nothing = detection.evaluate({"images": [{"id": 1}], "categories": [], "annotations": []}, [])
    assert math.isnan(permutation_p_value([nothing], [nothing], draws=9))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: permutation_p_value([], []), "no results were given"),
        (lambda: permutation_p_value([accuracy([1])], [accuracy([1])] * 2), "1 and 2 seeds cannot be paired"),
        (lambda: permutation_p_value([accuracy([1])], [accuracy([1, 0])]), "not on the same images"),
        (lambda: permutation_p_value([accuracy([1])], [accuracy([1])], draws=0), "draws: 0 is too few"),
    ],
)
def test_what_cannot_be_tested_is_refused_in_one_sentence(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(HarnessError, match=words):
        call()


@pytest.mark.slow
def test_equal_entries_are_told_apart_as_often_as_the_level_says() -> None:
    """Top-1 and mAP of two entries that differ by chance alone: the share of p below 0.2 is 0.2."""
    generator = np.random.default_rng(0)
    trials, level = 250, 0.2
    rejected = np.zeros(2)
    truth, _ = random_data(0, 0, 40, 12)
    boxes = [
        {
            "image_id": one["image_id"],
            "category_id": one["category_id"],
            "bbox": one["bbox"],
        }
        for one in truth["annotations"]
    ]
    for trial in range(trials):
        difficulty = generator.normal(size=60)
        pair = [accuracy(difficulty + generator.normal(size=60) < 0.5) for _ in range(2)]
        rejected[0] += permutation_p_value(pair[:1], pair[1:], 99, trial) <= level
        found = [
            detection.evaluate(
                truth,
                [
                    {**box, "bbox": np.add(box["bbox"], [*generator.normal(0, 4, 2), 0, 0]).tolist(), "score": s}
                    for box, s in zip(boxes, generator.random(len(boxes)).tolist(), strict=True)
                ],
            )
            for _ in range(2)
        ]
        rejected[1] += permutation_p_value(found[:1], found[1:], 99, trial) <= level
    error = math.sqrt(level * (1 - level) / trials)
    assert rejected[1] / trials == pytest.approx(level, abs=3 * error)
    assert rejected[0] / trials <= level + 3 * error  # differences of an accuracy tie, so its p-values are too large
