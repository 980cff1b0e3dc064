from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from harness.cards import SegmentationClass
from harness.errors import HarnessError
from harness.evaluation.segmentation import CITYSCAPES, LabelClass, LabelMap, SegmentationResult, evaluate
from harness.evaluation.segmentation_kernels import count_pairs

Maps = list[NDArray[np.uint8]]
SEEDS = st.integers(0, 2**32 - 1)
FEW = settings(max_examples=30, deadline=None, derandomize=True)


def random_maps(seed: int, images: int = 4) -> tuple[Maps, Maps, list[NDArray[np.int32]]]:
    """Few classes per image, so that some are absent; instance ids as Cityscapes has them."""
    rng = np.random.default_rng(seed)
    truth, prediction, instances = [], [], []
    for _ in range(images):
        shape = tuple(rng.integers(3, 14, 2))
        chosen = rng.choice(34, 6)
        label = rng.choice(chosen, shape).astype(np.uint8)
        guess = np.where(rng.random(shape) < 0.6, label, rng.integers(0, 34, shape)).astype(np.uint8)
        numbered = label.astype(np.int32) * 1000 + rng.integers(0, 3, shape).astype(np.int32)
        instances.append(np.where((label >= 24) & (rng.random(shape) < 0.9), numbered, label))
        truth.append(label)
        prediction.append(guess)
    return truth, prediction, instances


def restated(truth: Maps, prediction: Maps, instances: list[NDArray[np.int32]], label_map: LabelMap) -> dict[str, Any]:
    """The official script's rules, pixel by pixel, with dictionaries."""
    info = {c.id: c for c in label_map.classes}
    pairs = [np.stack([a.ravel(), b.ravel()], axis=1) for a, b in zip(truth, prediction, strict=True)]
    pixels = [(int(t), int(p)) for t, p in np.concatenate(pairs)]
    valid = [(t, p) for t, p in pixels if info[t].evaluated]
    scores: dict[str, Any] = {"class": {}, "category": {}, "iclass": {}, "icategory": {}}
    grown: dict[str, float] = {}
    for b, c in zip(prediction, instances, strict=True):
        for number in np.unique(c[c > 1000]):
            one = info[int(number) // 1000]
            if not one.evaluated:
                continue
            inside = b[c == number]
            weight = float(one.average_size or math.nan) / len(inside)
            hits = float(np.sum(inside == one.id)) * weight
            family = float(sum(info[int(p)].category == one.category for p in inside)) * weight
            for key, value in (
                (f"c tp {one.name}", hits),
                (f"c fn {one.name}", len(inside) * weight - hits),
                (f"g tp {one.category}", family),
                (f"g fn {one.category}", len(inside) * weight - family),
            ):
                grown[key] = grown.get(key, 0.0) + value

    def score(tp: float, fp: float, fn: float) -> float:
        return tp / (tp + fp + fn) if tp + fp + fn else math.nan

    for c in label_map.evaluated:
        tp = sum(t == p == c.id for t, p in valid)
        fp = sum(t != c.id and p == c.id for t, p in valid)
        fn = sum(t == c.id and p != c.id for t, p in valid)
        scores["class"][c.name] = score(tp, fp, fn)
        if c.has_instances:
            scores["iclass"][c.name] = score(grown.get(f"c tp {c.name}", 0.0), fp, grown.get(f"c fn {c.name}", 0.0))
    for name in label_map.categories:
        everything = [c for c in label_map.classes if c.category == name]
        some = {c.id for c in everything if c.evaluated}
        tp = sum(t in some and p in some for t, p in valid)
        fp = sum(t not in some and p in some for t, p in valid)
        fn = sum(t in some and p not in some for t, p in valid)
        scores["category"][name] = score(tp, fp, fn)
        if all(c.has_instances for c in everything):
            all_ids = {c.id for c in everything}
            fp = sum(t not in some and p in all_ids for t, p in valid)
            scores["icategory"][name] = score(grown.get(f"g tp {name}", 0.0), fp, grown.get(f"g fn {name}", 0.0))
    return scores


def mean(scores: dict[str, float]) -> float:
    defined = [value for value in scores.values() if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


@FEW
@given(seed=SEEDS)
def test_every_number_follows_the_official_rules(seed: int) -> None:
    truth, prediction, instances = random_maps(seed)
    expected = restated(truth, prediction, instances, CITYSCAPES)
    result = evaluate(truth, prediction, instances=instances)
    assert result.class_iou == pytest.approx(expected["class"], abs=0, rel=0, nan_ok=True)
    assert result.category_iou == pytest.approx(expected["category"], abs=0, rel=0, nan_ok=True)
    assert result.class_iiou == pytest.approx(expected["iclass"], rel=1e-12, nan_ok=True)
    numbers = result.reduce()
    assert numbers["miou"] == result.miou == mean(expected["class"])
    assert numbers["category_miou"] == mean(expected["category"])
    assert numbers["iiou"] == pytest.approx(mean(expected["iclass"]), rel=1e-12, nan_ok=True)
    assert numbers["category_iiou"] == pytest.approx(mean(expected["icategory"]), rel=1e-12, nan_ok=True)


def test_predicting_an_ignored_id_on_a_valid_pixel_is_a_miss_and_ignored_ground_truth_drops_out() -> None:
    road, sidewalk, void = 7, 8, 0
    truth = np.array([[road, road, road, sidewalk, void, void]], np.uint8)
    prediction = np.array([[road, void, sidewalk, sidewalk, road, void]], np.uint8)
    result = evaluate([truth], [prediction])
    assert result.class_iou["road"] == 1 / 3  # the void prediction and the sidewalk are misses; road on void is nothing
    assert result.class_iou["sidewalk"] == 1 / 2
    assert np.isnan(result.class_iou["building"])
    assert result.miou == (1 / 3 + 1 / 2) / 2
    assert result.category_iou["flat"] == 3 / 4
    assert np.isnan(result.iiou)


def test_a_class_that_is_only_predicted_counts_as_zero() -> None:
    result = evaluate([np.full((2, 2), 7, np.uint8)], [np.full((2, 2), 8, np.uint8)])
    assert result.class_iou["sidewalk"] == 0
    assert result.miou == 0


def test_cityscapes_has_34_ids_19_evaluated_classes_and_7_evaluated_categories() -> None:
    assert [c.id for c in CITYSCAPES.classes] == list(range(34))
    assert [c.id for c in CITYSCAPES.evaluated] == [7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33]
    assert CITYSCAPES.categories == ("flat", "construction", "object", "nature", "sky", "human", "vehicle")
    assert {c.name for c in CITYSCAPES.evaluated if c.has_instances} == {
        "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    }  # fmt: skip
    assert all((c.average_size is not None) == c.has_instances for c in CITYSCAPES.classes)


def test_a_cards_classes_make_a_label_map_and_cityscapes_own_get_the_official_sizes() -> None:
    car = SegmentationClass(name="car", id=26, category="vehicle", has_instances=True)
    ball = SegmentationClass(name="ball", id=1, has_instances=True)
    found = LabelMap.of([car, ball])
    assert found.classes[0].average_size == 12794.0202738185
    assert found.classes[1].average_size is None
    assert found.categories == ("vehicle",)


def test_without_official_sizes_instances_are_weighed_by_the_data_s_own_average() -> None:
    label_map = LabelMap((LabelClass("ground", 0), LabelClass("ball", 1, has_instances=True)))
    truth = np.array([[1, 1, 1, 0, 1, 0]], np.uint8)
    prediction = np.array([[1, 1, 1, 0, 0, 0]], np.uint8)
    instances = np.array([[1001, 1001, 1001, 0, 1002, 0]], np.uint16)
    # average size 2: the found ball of 3 pixels and the missed one of 1 both weigh 2
    assert evaluate([truth], [prediction], label_map, instances=[instances]).iiou == 0.5


@FEW
@given(seed=SEEDS, weights=st.lists(st.integers(0, 3), min_size=4, max_size=4).filter(any))
def test_weights_equal_repeating_the_images(seed: int, weights: list[int]) -> None:
    truth, prediction, instances = random_maps(seed)
    repeated = [
        [item for item, n in zip(group, weights, strict=True) for _ in range(n)] for group in (truth, prediction)
    ]
    more = [item for item, n in zip(instances, weights, strict=True) for _ in range(n)]
    result = evaluate(truth, prediction, instances=instances)
    w = np.array(weights)
    expected = evaluate(*repeated, instances=more).reduce()
    assert result.reduce(w) == pytest.approx(expected, rel=1e-12, nan_ok=True)
    assert result.reduce(w)["miou"] == expected["miou"] == result.reduce_main(np.stack([w, w]))[1]


@FEW
@given(seed=SEEDS, cut=st.integers(1, 3), overlap=st.integers(0, 2), with_instances=st.booleans())
def test_merged_shards_equal_the_whole_even_when_they_overlap(
    seed: int, cut: int, overlap: int, with_instances: bool
) -> None:
    groups = random_maps(seed)
    ids = ["d", "b", "a", "c"]

    def part(rows: slice) -> SegmentationResult:
        truth, prediction, instances = (group[rows] for group in groups)
        return evaluate(truth, prediction, ids=ids[rows], instances=instances if with_instances else None)

    whole = part(slice(None))
    merged = SegmentationResult.merge([part(slice(max(0, cut - overlap), None)), part(slice(0, cut))])
    assert {k: v.tolist() for k, v in merged.statistics.items()} == {k: v.tolist() for k, v in whole.statistics.items()}
    again = SegmentationResult.from_statistics(merged.statistics)
    assert again.reduce() == pytest.approx(whole.reduce(), rel=0, abs=0, nan_ok=True)
    assert list(again.per_class()) == [c.name for c in CITYSCAPES.evaluated]


@FEW
@given(seed=SEEDS, size=st.integers(0, 70), ids=st.integers(1, 256), run=st.integers(1, 20))
def test_pairs_are_counted_like_bincount_in_runs_and_in_noise(seed: int, size: int, ids: int, run: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(0, ids, size).repeat(run).astype(np.uint8).reshape(1, -1) for _ in range(2))
    expected = np.bincount(a.ravel().astype(np.int64) * 256 + b.ravel(), minlength=65536).reshape(256, 256)
    assert np.array_equal(count_pairs(a, b), expected)
    assert np.array_equal(count_pairs(a[:, 3:], b[:, 3:]).sum(), a[:, 3:].size)  # not aligned to a word


def write(folder: Path, name: str, array: NDArray[Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(folder / name)


@pytest.fixture
def dataset(tmp_path: Path) -> tuple[Path, Path, SegmentationResult]:
    truth, prediction, instances = random_maps(11)
    frames = [f"city_{n:06d}_000019" for n in range(4)]
    for n, frame in enumerate(frames):
        place = tmp_path / "gtFine" / f"city{n % 2}"
        write(place, f"{frame}_gtFine_labelIds.png", truth[n])
        write(place, f"{frame}_gtFine_instanceIds.png", instances[n].astype(np.uint16))
        write(tmp_path / "predictions" / f"sub{n}", f"{frame}_leftImg8bit.png", prediction[n])
    expected = evaluate(truth, prediction, ids=frames, instances=instances)
    return tmp_path / "gtFine", tmp_path / "predictions", expected


def same(a: SegmentationResult, b: SegmentationResult) -> bool:
    return all(np.array_equal(a.statistics[name], b.statistics[name]) for name in a.statistics)


def test_folders_lists_of_files_and_zips_give_the_same_as_arrays(dataset: Any, tmp_path: Path) -> None:
    truth, prediction, expected = dataset
    with zipfile.ZipFile(tmp_path / "predictions.zip", "w") as archive:
        for path in prediction.rglob("*.png"):
            archive.write(path, f"submission/{path.name}")
        archive.writestr("submission/notes.txt", "hello")
    assert same(evaluate(truth, prediction), expected)
    assert same(evaluate(str(truth), str(prediction)), expected)
    assert same(evaluate(truth, tmp_path / "predictions.zip"), expected)
    assert same(evaluate(sorted(truth.rglob("*labelIds.png")), prediction), expected)


def test_a_palette_png_counts_by_its_indices(dataset: Any) -> None:
    truth, prediction, expected = dataset
    path = next(iter(prediction.rglob("*.png")))
    image = Image.open(path).convert("L")
    coloured = Image.fromarray(np.asarray(image))
    coloured.putpalette(list(range(256)) * 3)
    coloured.save(path)
    assert Image.open(path).mode == "P"
    assert same(evaluate(truth, prediction), expected)


def test_frames_can_be_chosen(dataset: Any) -> None:
    truth, prediction, expected = dataset
    one = evaluate(truth, prediction, ids=["city_000002_000019"])
    assert one.ids.tolist() == ["city_000002_000019"]
    assert one.reduce() == pytest.approx(expected.reduce(np.array([0, 0, 1, 0])), nan_ok=True)
    with pytest.raises(HarnessError, match="ids: the ground truth has no nowhere_gtFine_labelIds"):
        evaluate(truth, prediction, ids=["nowhere"])


def test_instance_ids_for_some_frames_only_are_refused(dataset: Any) -> None:
    truth, prediction, _ = dataset
    next(iter(truth.rglob("*instanceIds.png"))).unlink()
    with pytest.raises(HarnessError, match=r"instanceIds.png: is missing, but other frames have one"):
        evaluate(truth, prediction)


def test_an_empty_ground_truth_folder_is_refused(dataset: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(HarnessError, match="has no file whose name ends in _gtFine_labelIds"):
        evaluate(tmp_path / "empty", dataset[1])
    with pytest.raises(HarnessError, match="no such folder"):
        evaluate(tmp_path / "missing", dataset[1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([np.zeros((2, 2), np.uint8)], [np.zeros((2, 3), np.uint8)]), r"image '00000000': shape \[2, 3\]"),
        (([np.zeros((2, 2), np.uint8)], [np.zeros((2, 2))]), "prediction: label maps are uint8"),
        (([np.full((2, 2), 34, np.uint8)], [np.zeros((2, 2), np.uint8)]), "the ground truth holds the id 34"),
        (
            ([np.zeros((2, 2), np.uint8)], [np.full((2, 2), 255, np.uint8)]),
            "prediction holds the id 255, .* not train ids",
        ),
        (([np.zeros((2, 2), np.uint8)], []), "1 label maps of ground truth for 0 predictions"),
        (([], []), "no images to score"),
        (("truth", [np.zeros((2, 2), np.uint8)]), "files or arrays for both"),
    ],
)
def test_bad_maps_are_refused_in_one_sentence(arguments: Any, words: str) -> None:
    with pytest.raises(HarnessError, match=words):
        evaluate(*arguments)


@pytest.mark.parametrize(
    ("instances", "words"),
    [
        (np.full((2, 2), 99_001), "instance id lies outside"),
        (np.full((2, 2), 65_001), "the instance id 65001 is of no class"),
        (np.zeros((2, 3), np.int32), "the instance ids are not whole numbers of the ground truth's shape"),
    ],
)
def test_bad_instance_ids_are_refused(instances: Any, words: str) -> None:
    with pytest.raises(HarnessError, match=words):
        evaluate([np.zeros((2, 2), np.uint8)], [np.zeros((2, 2), np.uint8)], instances=[instances])


def test_label_maps_with_equal_or_impossible_ids_or_nothing_to_score_are_refused() -> None:
    for classes in (
        (LabelClass("a", 1), LabelClass("b", 1)),
        (LabelClass("a", 256),),
        (LabelClass("a", 1, evaluated=False),),
    ):
        with pytest.raises(HarnessError, match="label map"):
            LabelMap(classes)


@pytest.mark.parametrize(
    "name", ["ids", "tp", "category_fn", "instance_hit", "instance_class", "average_size", "classes"]
)
def test_damaged_statistics_are_refused(name: str) -> None:
    truth, prediction, instances = random_maps(0)
    arrays = evaluate(truth, prediction, instances=instances).statistics
    with pytest.raises(HarnessError, match=f"{name}: this array is required"):
        SegmentationResult.from_statistics({k: v for k, v in arrays.items() if k != name})
    with pytest.raises(HarnessError, match=f"statistics: {name}"):
        SegmentationResult.from_statistics({**arrays, name: np.array([True])})
    if name in ("tp", "instance_hit"):
        with pytest.raises(HarnessError, match=f"{name}: a count is negative, NaN or too large"):
            SegmentationResult.from_statistics({**arrays, name: -arrays[name] - 1})


def test_statistics_with_more_false_hits_than_misses_or_more_hits_than_instances_are_refused() -> None:
    truth, prediction, instances = random_maps(0)
    arrays = evaluate(truth, prediction, instances=instances).statistics
    rest = arrays["fn"].sum(axis=1, keepdims=True) - arrays["fn"]
    assert (arrays["fp"] < rest).any()  # some pixels are predicted as ignored
    for name, changed in (
        ("fp", rest),  # of each class alone possible
        ("fp", np.where(np.arange(rest.shape[1]) == 0, rest + 1, 0)),
        ("instance_hit", arrays["instance_count"] + 0.5),
        ("instance_category_hit", arrays["instance_count"] + 0.5),
    ):
        with pytest.raises(HarnessError, match=f"statistics: {name}: "):
            SegmentationResult.from_statistics({**arrays, name: changed})


def test_a_perfect_prediction_has_the_ground_truth_of_any_other() -> None:
    truth, prediction, instances = random_maps(1)
    result, perfect = (evaluate(truth, one, instances=instances) for one in (prediction, truth))
    assert perfect.miou == 1
    for name, array in result.ground_truth().items():
        assert np.array_equal(array, perfect.ground_truth()[name]), name
