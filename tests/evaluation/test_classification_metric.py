from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harness.errors import HarnessError
from harness.evaluation.classification import ClassificationResult, evaluate

SCORES = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 12), st.integers(1, 8)), elements=st.sampled_from([-1.5, 0.0, 0.25, 2.0])
)


def test_top1_top5_and_macro_numbers_of_a_case_worked_out_by_hand() -> None:
    # predictions 0, 1, 1, 2; class 0: P 1/1, R 1/2; class 1: P 1/2, R 1/1; class 2: P 1/1, R 1/1; 3 to 5 never occur
    scores = np.eye(6)[[0, 1, 1, 2]]
    result = evaluate([0, 0, 1, 2], scores)
    numbers = result.reduce()
    assert numbers["top1"] == result.top1 == 0.75
    assert numbers["top5"] == 1.0
    assert numbers["macro_precision"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert numbers["macro_recall"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert numbers["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert result.per_class()["0"] == 0.5
    assert np.isnan(result.per_class()["5"])


def test_equal_scores_rank_the_smaller_class_index_first() -> None:
    scores = np.zeros((6, 6))
    result = evaluate(np.arange(6), scores)
    assert result.rank.tolist() == [0, 1, 2, 3, 4, 5]
    assert result.reduce()["top1"] == pytest.approx(1 / 6)
    assert result.reduce()["top5"] == pytest.approx(5 / 6)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(scores=SCORES, data=st.data())
def test_ranks_equal_the_place_in_a_stable_descending_sort(scores: Any, data: st.DataObject) -> None:
    n, c = scores.shape
    labels = data.draw(hnp.arrays(np.int64, n, elements=st.integers(0, c - 1)))
    order = np.argsort(-scores, axis=1, kind="stable")
    places = [int(np.flatnonzero(row == label)[0]) for row, label in zip(order, labels, strict=True)]
    result = evaluate(labels, scores)
    assert result.rank.tolist() == places
    assert result.predicted.tolist() == order[:, 0].tolist()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(scores=SCORES, data=st.data())
def test_weights_equal_repeating_the_images(scores: Any, data: st.DataObject) -> None:
    n, c = scores.shape
    labels = data.draw(hnp.arrays(np.int64, n, elements=st.integers(0, c - 1)))
    weights = data.draw(hnp.arrays(np.int64, n, elements=st.integers(0, 3)).filter(lambda w: w.any()))
    result = evaluate(labels, scores)
    repeated = evaluate(labels.repeat(weights), scores.repeat(weights, axis=0))
    np.testing.assert_allclose(
        list(result.reduce(weights).values()), list(repeated.reduce().values()), atol=1e-15, equal_nan=True
    )
    assert result.reduce_main(weights[None])[0] == result.reduce(weights)["top1"]


def test_top5_is_undefined_for_fewer_than_five_classes_and_for_predicted_classes() -> None:
    assert np.isnan(evaluate([0, 1], np.eye(4)[:2]).reduce()["top5"])
    assert evaluate([0, 1], np.eye(5)[:2]).reduce()["top5"] == 1
    assert np.isnan(evaluate([0, 1, 6], [0, 0, 6]).reduce()["top5"])


def test_predicted_classes_give_the_same_top1_and_macro_numbers_as_their_scores() -> None:
    generator = np.random.default_rng(0)
    labels, predicted = generator.integers(0, 7, 50), generator.integers(0, 7, 50)
    from_scores, from_labels = evaluate(labels, np.eye(7)[predicted]), evaluate(labels, predicted)
    for name in ("top1", "macro_precision", "macro_recall", "macro_f1"):
        assert from_labels.reduce()[name] == from_scores.reduce()[name]


def test_real_label_sets_count_any_acceptable_class_and_drop_images_without_one() -> None:
    scores = np.array([[3.0, 2, 1, 0, 0, 0], [3, 2, 1, 0, 0, 0], [3, 2, 1, 0, 0, 0]])
    result = evaluate([[1, 0], [2], []], scores, ids=["a", "b", "c"])
    assert result.ids.tolist() == ["a", "b"]
    assert result.reduce()["top1"] == 0.5
    assert result.reduce()["top5"] == 1.0
    assert np.isnan(result.reduce()["macro_f1"])
    assert result.per_class() == {}
    assert evaluate([[1, 0], [2], []], np.array([0, 0, 0]), ids=["a", "b", "c"]).top1 == 0.5


@settings(max_examples=30, deadline=None, derandomize=True)
@given(n=st.integers(2, 12), cut=st.integers(0, 12), seed=st.integers(0, 99))
def test_merged_shards_equal_the_whole_even_when_they_overlap(n: int, cut: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels, scores = generator.integers(0, 6, n), generator.normal(size=(n, 6))
    ids = [f"image {i}" for i in generator.permutation(n)]
    whole = evaluate(labels, scores, ids)
    parts = [slice(0, min(cut, n)), slice(max(0, min(cut, n) - 2), n)]
    merged = ClassificationResult.merge([evaluate(labels[p], scores[p], ids[p], list("012345")) for p in parts])
    assert {k: v.tolist() for k, v in merged.statistics.items()} == {k: v.tolist() for k, v in whole.statistics.items()}
    again = ClassificationResult.from_statistics(merged.statistics)
    assert again.reduce() == whole.reduce()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([0, 1], np.eye(2)[:1]), "1 rows for 2 labels"),
        (([0, 5], np.eye(2)), r"labels\[1\]: class 5 is not between 0 and 1"),
        (([0, -1], np.eye(2)), r"labels\[1\]"),
        (([0.5, 1], np.eye(2)), "labels: shape"),
        (([[0], ["cat"]], np.eye(2)), r"labels\[1\]: \['cat'\]"),
        (([0, 1], np.array([[0, np.nan], [0, 0]])), r"scores\[0, 1\]: nan"),
        (([0, 1], np.array([[0, 1], [np.inf, 0]])), r"scores\[1, 0\]: inf"),
        (([0, 1], np.array([["a", "b"]] * 2)), "scores: dtype"),
        (([0, 1], np.zeros((2, 2, 2))), "scores: shape"),
        (([0, 1], np.array([0.5, 1])), "scores: shape"),
        (([0, 1], np.array([0, -1])), r"scores\[1\]: class -1"),
        (([0, 1], np.eye(2), ["a", "a"]), "ids: 'a' appears twice"),
        (([0, 1], np.eye(2), ["a"]), "ids: 1 for 2 images"),
        (([0, 1], np.eye(2), None, ["a"]), "2 columns, but there are 1 classes"),
    ],
)
def test_bad_input_is_refused_in_one_sentence_that_names_the_place(arguments: Any, words: str) -> None:
    with pytest.raises(HarnessError, match=words):
        evaluate(*arguments)


@pytest.mark.parametrize("name", ["ids", "classes", "label", "predicted", "rank"])
def test_damaged_statistics_are_refused(name: str) -> None:
    arrays = evaluate([0, 1], np.eye(2)).statistics
    with pytest.raises(HarnessError, match=f"{name}: this array is required"):
        ClassificationResult.from_statistics({k: v for k, v in arrays.items() if k != name})
    with pytest.raises(HarnessError, match=f"statistics: {name}"):
        ClassificationResult.from_statistics({**arrays, name: np.array([0.5, 0.5])})
    if name not in ("ids", "classes"):
        with pytest.raises(HarnessError, match=f"{name}: 7 is not between"):
            ClassificationResult.from_statistics({**arrays, name: np.array([0, 7], np.int32)})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rank": [0, 0]}, "rank: is 0 for other images than those whose predicted class is the label"),
        ({"rank": [1, 1]}, "rank: is 0 for other images than those whose predicted class is the label"),
        ({"predicted": [0, 1]}, "rank: is 0 for other images than those whose predicted class is the label"),
        ({"label": [0, -1]}, "label: only some images have a single label"),
    ],
)
def test_statistics_that_contradict_themselves_are_refused(changes: dict[str, list[int]], words: str) -> None:
    arrays = evaluate([0, 1], np.array([[1.0, 0.0], [1.0, 0.0]])).statistics
    ClassificationResult.from_statistics(arrays)
    changed = {name: np.array(values, np.int32) for name, values in changes.items()}
    with pytest.raises(HarnessError, match=words):
        ClassificationResult.from_statistics({**arrays, **changed})


@pytest.mark.parametrize("scores", [np.eye(3)[[0, 1, 0]], np.array([0, 1, 0])])
def test_of_label_sets_any_rank_may_be_the_first(scores: Any) -> None:
    result = evaluate([[0, 2], [0], [1, 2]], scores, classes=list("abc"))
    assert result.top1 == pytest.approx(1 / 3)
    assert ClassificationResult.from_statistics(result.statistics).top1 == result.top1
