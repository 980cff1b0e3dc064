from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_oracle import duplicated, official, random_data, undefined_as_nan
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.evaluation import detection
from harness.evaluation.detection import DetectionResult, evaluate
from harness.evaluation.detection_result import NAMES

SIZES = st.sampled_from([0, 1, 7, 60])
SEEDS = st.integers(0, 2**32 - 1)
FEW = settings(max_examples=40, deadline=None, derandomize=True)


def assert_bit_equal(result: DetectionResult, evaluator: Any) -> None:
    assert np.array_equal(result.precision, evaluator.eval["precision"])
    assert np.array_equal(result.recall, evaluator.eval["recall"])
    assert np.array_equal(result.scores, evaluator.eval["scores"])
    assert np.array_equal(result.stats, evaluator.stats)


@FEW
@given(seed=SEEDS, detections=SIZES, annotations=SIZES)
def test_every_number_equals_pycocotools_bit_for_bit(seed: int, detections: int, annotations: int) -> None:
    truth, results = random_data(seed, detections, annotations)
    assert_bit_equal(evaluate(truth, results), official(truth, results))


@pytest.mark.parametrize("seed", range(3))
def test_more_than_a_hundred_detections_per_image_and_category_equal_pycocotools(seed: int) -> None:
    truth, results = random_data(seed, 700, 40, images=2, categories=2)
    assert_bit_equal(evaluate(truth, results), official(truth, results))


@pytest.mark.parametrize("seed", range(3))
def test_scores_in_float32_and_whole_numbers_equal_pycocotools(seed: int) -> None:
    truth, results = random_data(seed, 60, 20)
    for number, result in enumerate(results):
        result["score"] = np.float32(result["score"]) if number % 2 else int(result["score"] * 4)
    assert_bit_equal(evaluate(truth, results), official(truth, results))


@FEW
@given(seed=SEEDS, chosen=st.sets(st.integers(0, 5), min_size=1))
def test_a_subset_of_images_equals_pycocotools_with_these_image_ids(seed: int, chosen: set[int]) -> None:
    truth, results = random_data(seed, 60, 20)
    images = [truth["images"][n]["id"] for n in chosen]
    assert_bit_equal(evaluate(truth, results, images), official(truth, results, images))


def test_image_order_is_numeric_where_scores_tie_although_ids_sort_as_text() -> None:
    # A false positive on image 9 and a true positive on image 10 tie: as text, "10" < "9" would put the hit first.
    truth = {
        "images": [{"id": 9}, {"id": 10}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": 1, "image_id": 10, "category_id": 1, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0}],
    }
    results = [
        {"image_id": 10, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.5},
        {"image_id": 9, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.5},
    ]
    result = evaluate(truth, results)
    assert result.ids.tolist() == ["10", "9"]
    assert result.reduce()["AP50"] == pytest.approx(0.5)
    assert result.reduce(np.array([1, 1]))["AP50"] == pytest.approx(0.5)
    assert_bit_equal(result, official(truth, results))


def test_one_perfect_and_one_missed_box_give_half_the_recall() -> None:
    box = {"category_id": 1, "bbox": [0, 0, 10, 10]}
    truth = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{**box, "id": n, "image_id": n, "area": 100, "iscrowd": 0} for n in (1, 2)],
    }
    result = evaluate(truth, [{**box, "image_id": 1, "score": 0.9}])
    # recall thresholds 0, 0.01, ..., 0.50 are reached at precision 1 (less 2**-52): 51 of 101
    assert result.reduce()["AP"] == pytest.approx(51 / 101)
    assert result.reduce()["AR100"] == 0.5
    assert np.isnan(result.reduce()["APl"])
    assert result.stats[5] == -1


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=SEEDS, detections=SIZES, weights=st.lists(st.integers(0, 3), min_size=6, max_size=6).filter(any))
def test_weights_equal_pycocotools_on_a_data_set_with_copies_of_the_images(
    seed: int, detections: int, weights: list[int]
) -> None:
    truth, results = random_data(seed, detections, 20)
    result = evaluate(truth, results)
    bigger, copies = duplicated(truth, results, dict(zip(map(int, result.ids), weights, strict=True)))
    expected = undefined_as_nan(official(bigger, copies).stats)
    np.testing.assert_allclose(result.reduce_many(np.array([weights]))[0], expected, atol=1e-12, rtol=0)


@FEW
@given(seed=SEEDS, detections=SIZES)
def test_weights_of_one_equal_no_weights(seed: int, detections: int) -> None:
    result = evaluate(*random_data(seed, detections, 20))
    weighted = result.reduce(np.ones(6, np.int64))
    np.testing.assert_allclose(list(weighted.values()), list(result.reduce().values()), atol=1e-14, rtol=0)


def test_each_draw_is_reduced_by_itself_whatever_stands_beside_it() -> None:
    result = evaluate(*random_data(5, 60, 20))
    weights = np.random.default_rng(0).integers(0, 4, (150, 6))
    many = result.reduce_many(weights)
    for draw in (0, 63, 64, 149):
        alone = result.reduce(weights[draw])
        assert np.array_equal(many[draw], [alone[name] for name in NAMES], equal_nan=True)
    assert np.array_equal(result.reduce_main(weights), many[:, 0], equal_nan=True)


@FEW
@given(seed=SEEDS, cut=st.integers(0, 6), overlap=st.integers(0, 3))
def test_merged_shards_equal_the_whole_even_when_they_overlap(seed: int, cut: int, overlap: int) -> None:
    truth, results = random_data(seed, 60, 20)
    images = [entry["id"] for entry in truth["images"]]
    whole = evaluate(truth, results)
    shards = [evaluate(truth, results, part) for part in (images[max(0, cut - overlap) :], images[:cut]) if part]
    merged = DetectionResult.merge(shards)
    assert {k: v.tolist() for k, v in merged.statistics.items()} == {k: v.tolist() for k, v in whole.statistics.items()}
    assert np.array_equal(merged.precision, whole.precision)


@FEW
@given(seed=SEEDS, detections=SIZES, annotations=SIZES)
def test_stored_statistics_give_the_same_numbers(seed: int, detections: int, annotations: int) -> None:
    result = evaluate(*random_data(seed, detections, annotations))
    again = DetectionResult.from_statistics(result.statistics)
    assert np.array_equal(again.stats, result.stats)
    assert list(again.per_class()) == list(result.per_class())


def test_ap_per_class_is_the_mean_of_the_precision_curve_and_nan_without_ground_truth() -> None:
    truth, results = random_data(1, 60, 20)
    truth["categories"].append({"id": 91, "name": "never"})
    result = evaluate(truth, results)
    assert np.isnan(result.per_class()["never"])
    precision = official(truth, results).eval["precision"][:, :, 0, 0, 2]
    assert next(iter(result.per_class().values())) == pytest.approx(precision.mean())


def test_files_and_loaded_objects_give_the_same(tmp_path: Path) -> None:
    truth, results = random_data(3, 60, 20)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(results))
    from_files = evaluate(tmp_path / "truth.json", str(tmp_path / "results.json"))
    assert np.array_equal(from_files.precision, evaluate(truth, results).precision)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("images"), "truth: images: a list is required"),
        (lambda t: t["annotations"].append(7), "truth: annotations[5]: 7 is not a mapping"),
        (
            lambda t: t["annotations"][2].update(id=0),
            "annotations[2].id: 0; pycocotools takes a match",
        ),
        (lambda t: t["annotations"][2].update(id=1), "annotations[2].id: 1 appears twice"),
        (lambda t: t["annotations"][2].pop("area"), "annotations[2].area: this key is required"),
        (lambda t: t["annotations"][2].update(area=float("nan")), "annotations[2].area: nan is not a finite number"),
        (
            lambda t: t["annotations"][2].update(image_id=-5),
            "annotations[2].image_id: -5 is not in the file's image list",
        ),
        (lambda t: t["annotations"][2].update(category_id=-5), "category_id: -5 is not in the file's category list"),
        (
            lambda t: t["annotations"][2].update(bbox=[0, 0, -1, 2]),
            "annotations[2].bbox: [0.0, 0.0, -1.0, 2.0] has a neg",
        ),
        (lambda t: t["annotations"][2].update(iscrowd=2), "annotations[2].iscrowd: 2 is not 0 or 1"),
        (lambda t: t["images"].append(dict(t["images"][0])), "appears twice"),
        (lambda t: t["images"][0].update(id="1"), "images[0].id: '1' is not a whole number"),
    ],
)
def test_bad_ground_truth_is_refused_in_one_sentence_that_names_the_place(change: Any, words: str) -> None:
    truth, _ = random_data(0, 0, 5)
    change(truth)
    with pytest.raises(HarnessError) as error:
        evaluate(truth, [])
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_image_ids_are_refused() -> None:
    truth, results = random_data(0, 5, 5)
    with pytest.raises(HarnessError, match="image_ids: -3 is not an image of truth"):
        evaluate(truth, results, [-3])


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("matched", np.array([1 << 40]), "matched: 1099511627776 is not between 0"),
        ("image", np.array([6], np.int32), "image: 6 is not between 0 and 5"),
        ("score", np.array([np.inf]), "score"),
        ("ids", np.array(list("abcdef")), "ids: COCO image ids are whole numbers"),
        ("ids", np.array(["1", "02", "3", "4", "5", "6"]), "ids: not sorted"),
        ("truth_count", np.zeros((1, 3), np.int32), "truth_count"),
        ("score", np.array(["a"]), "score: dtype"),
    ],
)
def test_damaged_statistics_are_refused(name: str, value: Any, words: str) -> None:
    truth, results = random_data(0, 1, 1)
    arrays = evaluate(truth, results).statistics
    with pytest.raises(HarnessError, match=words):
        DetectionResult.from_statistics({**arrays, name: value})
    with pytest.raises(HarnessError, match=f"{name}: this array is required"):
        DetectionResult.from_statistics({k: v for k, v in arrays.items() if k != name})


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (np.ones(5, np.int64), "weights: shape"),
        (np.ones(6), "weights: dtype float64"),
        (np.array([1, 1, 1, 1, 1, -1]), "weights: -1 is negative"),
        (np.full(6, 2**31), "too large"),
    ],
)
def test_weights_that_are_no_counts_are_refused(weights: Any, words: str) -> None:
    result = evaluate(*random_data(0, 60, 20))
    with pytest.raises(HarnessError, match=words):
        result.reduce(weights)


def test_shards_of_different_data_sets_do_not_merge() -> None:
    with pytest.raises(HarnessError, match="categories differ"):
        DetectionResult.merge([evaluate(*random_data(seed, 5, 5)) for seed in (0, 1)])


@pytest.mark.parametrize("seed", range(3))
def test_threads_and_a_sparse_table_of_cells_change_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, results = random_data(seed, 300, 60, images=20, categories=9)
    plain = evaluate(truth, results).statistics
    monkeypatch.setattr(detection, "_DENSE", -(10**9))
    monkeypatch.setattr(detection, "_SEVERAL_THREADS", 0)
    monkeypatch.setattr(detection, "processors", lambda: 5)
    other = evaluate(truth, results)
    assert {k: v.tolist() for k, v in other.statistics.items()} == {k: v.tolist() for k, v in plain.items()}
    assert_bit_equal(other, official(truth, results))


@pytest.mark.parametrize("seed", range(3))
def test_ids_of_any_size_and_sign_equal_pycocotools(seed: int) -> None:
    truth, results = random_data(seed, 120, 40)
    fresh = {entry["id"]: (-1) ** n * (2**62 - n * 10**15) for n, entry in enumerate(truth["images"])}
    for entry in truth["images"]:
        entry["id"] = fresh[entry["id"]]
    for entry in [*truth["annotations"], *results]:
        entry["image_id"] = fresh[entry["image_id"]]
    assert_bit_equal(evaluate(truth, results), official(truth, results))


@pytest.mark.parametrize("seed", range(3))
def test_many_overlapping_boxes_in_one_image_equal_pycocotools(seed: int) -> None:
    # every box overlaps most others: detections have many edges, and who was taken before decides
    rng = np.random.default_rng(seed)
    box = lambda: [*(rng.integers(0, 8, 2) * 2.0).tolist(), *(20 + rng.integers(0, 8, 2) * 2.0).tolist()]  # noqa: E731
    truth: dict[str, Any] = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "a"}], "annotations": []}
    for number in range(30):
        one = box()
        flags = {"iscrowd": int(rng.random() < 0.2), "area": one[2] * one[3] * float(rng.choice([0.5, 1, 2, 3]))}
        truth["annotations"].append({"id": number + 1, "image_id": 1, "category_id": 1, "bbox": one, **flags})
    results = [{"image_id": 1, "category_id": 1, "bbox": box(), "score": float(rng.integers(5)) / 5} for _ in range(90)]
    assert_bit_equal(evaluate(truth, results), official(truth, results))


def test_boxes_too_large_to_have_an_area_are_refused() -> None:
    truth, results = random_data(0, 5, 5)
    results[2]["bbox"] = [0, 0, 1e200, 1e200]
    with pytest.raises(HarnessError, match=r"results: \[2\].bbox: .* beyond 1e\+100"):
        evaluate(truth, results)


EVERY_BIT = (1 << 40) - 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: {"matched": a["matched"] | EVERY_BIT, "ignored": a["ignored"] & 0}, "more detections are matched"),
        (lambda a: {"truth_count": a["truth_count"] + [[0, 99, 0, 0]]}, "in an area range than in all"),
        (lambda a: {"truth_image": a["truth_image"] * 0}, "truth_image: a category stands twice"),
        (
            lambda a: {name: a[name][:0] for name in ("truth_image", "truth_category", "truth_count")},
            "matched where there is no ground truth",
        ),
    ],
)
def test_statistics_that_no_matching_gives_are_refused(change: Any, words: str) -> None:
    truth = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {"id": image, "image_id": image, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}
            for image in (1, 2)
        ],
    }
    boxes = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": score} for score in (0.9, 0.8)]
    arrays = evaluate(truth, boxes).statistics
    changed = {name: array.astype(arrays[name].dtype) for name, array in change(arrays).items()}
    with pytest.raises(HarnessError, match=words):
        DetectionResult.from_statistics({**arrays, **changed})


def test_what_follows_from_the_ground_truth_is_the_same_without_detections() -> None:
    for seed in range(5):
        truth, results = random_data(seed, 30, 20)
        here = evaluate(truth, []).ground_truth()
        for name, array in evaluate(truth, results).ground_truth().items():
            assert np.array_equal(array, here[name]), name
