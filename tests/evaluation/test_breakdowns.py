"""Every breakdown, under any weights, is the headline number of the part of the data that it names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from coco_oracle import duplicated, official, random_data
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.evaluation import classification, detection, segmentation, vqa
from harness.evaluation.metric import Result
from harness.evaluation.resampling import draw_weights, paired_breakdown, paired_difference

FEW = settings(max_examples=25, deadline=None, derandomize=True)


def classified(seed: int = 0, images: int = 40) -> classification.ClassificationResult:
    generator = np.random.default_rng(seed)
    return classification.evaluate(generator.integers(0, 4, images), generator.normal(size=(images, 5)))


def segmented(seed: int = 0) -> segmentation.SegmentationResult:
    generator = np.random.default_rng(seed)
    maps = [np.clip(generator.integers(5, 15, (2, 6, 8)), 7, 13).astype(np.uint8) for _ in range(5)]
    return segmentation.evaluate([one[0] for one in maps], [one[1] for one in maps])


def answered(seed: int = 0) -> vqa.VqaResult:
    generator = np.random.default_rng(seed)
    kinds = ["number", "other", "yes/no"]
    asked = [{"question_id": n, "image_id": int(generator.integers(6)), "question": "?"} for n in range(30)]
    people = [
        {
            "question_id": n,
            "answer_type": kinds[int(generator.integers(3))],
            "question_type": f"what {n % 4}",
            "answers": [{"answer": str(a)} for a in generator.integers(0, 3, 10)],
        }
        for n in range(30)
    ]
    given_answers = [{"question_id": n, "answer": str(generator.integers(3))} for n in range(30)]
    return vqa.evaluate({"questions": asked}, {"annotations": people}, given_answers)


def named(result: Result, kind: str, weights: NDArray[np.int64]) -> list[dict[str, float]]:
    names, values = result.reduce_by(kind, weights)
    assert values.shape == (len(weights), len(names))
    return [dict(zip(names, row.tolist(), strict=True)) for row in values]


@pytest.mark.parametrize(("result", "kind"), [(classified(), "class"), (segmented(), "class")])
def test_a_breakdown_with_every_image_once_is_the_number_per_class(result: Result, kind: str) -> None:
    once = np.ones((1, len(result.ids)), np.int64)
    assert named(result, kind, once)[0] == pytest.approx(result.per_class(), nan_ok=True)


def test_categories_of_segmentation_and_types_of_vqa_are_those_that_the_result_names() -> None:
    maps, answers = segmented(), answered()
    once = np.ones((1, len(maps.ids)), np.int64)
    assert named(maps, "category", once)[0] == pytest.approx(maps.category_iou, nan_ok=True)
    once = np.ones((1, len(answers.ids)), np.int64)
    for kind, official_percent in (
        ("answer-type", answers.per_answer_type),
        ("question-type", answers.per_question_type),
    ):
        assert named(answers, kind, once)[0] == pytest.approx({k: v / 100 for k, v in official_percent.items()})


@FEW
@given(seed=st.integers(0, 2**32 - 1), weights=st.lists(st.integers(0, 3), min_size=6, max_size=6).filter(any))
def test_ap_per_class_and_size_under_weights_equal_pycocotools_on_copied_images(seed: int, weights: list[int]) -> None:
    truth, results = random_data(seed, 60, 20)
    result = detection.evaluate(truth, results)
    evaluator = official(*duplicated(truth, results, dict(zip(map(int, result.ids), weights, strict=True))))
    w = np.array([weights])
    precision = evaluator.eval["precision"][:, :, :, 0, 2].mean(axis=(0, 1))
    expected = np.where(precision > -1, precision, np.nan)
    np.testing.assert_allclose(result.reduce_by("class", w)[1][0], expected, atol=1e-12, rtol=0)
    sizes = np.where(evaluator.stats[3:6] == -1, np.nan, evaluator.stats[3:6])
    np.testing.assert_allclose(result.reduce_by("size", w)[1][0], sizes, atol=1e-12, rtol=0)


@FEW
@given(seed=st.integers(0, 999))
def test_every_draw_of_a_breakdown_stands_for_itself(seed: int) -> None:
    for result in (classified(seed), segmented(seed), answered(seed), detection.evaluate(*random_data(seed, 60, 20))):
        weights = draw_weights(len(result.ids), 5, seed)
        for kind in result.breakdowns:
            together = named(result, kind, weights)
            for draw in range(5):
                alone = named(result, kind, weights[draw : draw + 1])[0]
                assert alone == pytest.approx(together[draw], nan_ok=True, abs=1e-12)


def test_the_difference_on_a_part_is_that_of_a_data_set_of_this_part_alone() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(400) % 2
    scores = [np.where(generator.random(400) < skill, labels, 1 - labels) for skill in (0.9, 0.6)]
    a, b = (classification.evaluate(labels, one, classes=["x", "y"]) for one in scores)
    part = paired_breakdown([a], [b], "class")["y"]
    alone = [classification.evaluate(labels[1::2], one[1::2], classes=["x", "y"]) for one in scores]
    expected = paired_difference([alone[0]], [alone[1]])
    assert part.difference == expected.difference
    assert part.interval.low == pytest.approx(expected.interval.low, abs=0.03)
    assert part.interval.high == pytest.approx(expected.interval.high, abs=0.03)
    assert part.p_value < 2 / 1001  # beyond what 1,000 draws can show: the normal tail


def test_a_part_without_a_number_is_left_out_and_an_unknown_breakdown_refused() -> None:
    labels = np.zeros(20, np.int64)
    result = classification.evaluate(labels, labels, classes=["x", "never"])
    found = paired_breakdown([result], [result], "class")
    assert list(found) == ["x"]
    assert found["x"].p_value == 1
    with pytest.raises(HarnessError, match="'size' is none of top1; it has class"):
        paired_breakdown([result], [result], "size")


@pytest.mark.slow
def test_equal_entries_differ_on_some_part_no_more_often_than_the_level_says_after_holm() -> None:
    from harness.evaluation.resampling import holm

    generator = np.random.default_rng(0)
    rejected, trials = 0, 300
    for trial in range(trials):
        labels = generator.integers(0, 10, 600)
        sides: Any = [
            classification.evaluate(labels, np.where(generator.random(600) < 0.7, labels, (labels + 1) % 10))
            for _ in range(2)
        ]
        found = paired_breakdown([sides[0]], [sides[1]], "class", draws=500, seed=trial)
        rejected += min(holm([outcome.p_value for outcome in found.values()])) < 0.05
    assert rejected / trials <= 0.05 + 3 * (0.05 * 0.95 / trials) ** 0.5
