import hashlib
import io
import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import orjson
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from harness.data import shapes
from harness.data.shapes.drawing import (
    BACKGROUNDS,
    COLORS,
    SHAPES,
    TILTS,
    Stream,
    background,
    coverage,
    encode_png,
    texture,
)
from harness.data.shapes.layouts import BACKGROUND_ID, CATEGORY_IDS, LABEL_IDS, VOID_ID, run_lengths
from harness.data.shapes.questions import PER_SCENE, TEMPLATES, Examiner, human_answers, possible_questions
from harness.data.shapes.scenes import MIN_DOMINANCE, MIN_VISIBLE, Object, draw_scene
from harness.errors import HarnessError
from harness.evaluation.vqa_text import answer_accuracy

TINY = {"train": 9, "val": 3, "test": 2}
SPLITS = ("train", "val", "test")


def files(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def load(root: Path, split: str, what: str) -> list[dict]:
    path = root / {
        "questions": f"vqa/v2_OpenEnded_mscoco_{split}2014_questions.json",
        "annotations": f"vqa/v2_mscoco_{split}2014_annotations.json",
    }.get(what, f"coco/annotations/instances_{split}.json")
    return orjson.loads(path.read_bytes())[what if what != "boxes" else "annotations"]


# The scenes


def test_the_pixels_are_the_same_on_every_machine() -> None:
    digest = hashlib.sha256()
    for index in range(64):
        digest.update(draw_scene(0, index % 3, index).image.tobytes())
    assert digest.hexdigest() == "cf6028d91845c5da3b741cb0ce96128bb37b4d0fde70bb4d87120c30c1554ec1"


def test_random_numbers_are_the_same_on_every_machine_and_in_their_range() -> None:
    stream = Stream(1, 2, 3)
    assert [stream.below(1000) for _ in range(5)] == [670, 111, 511, 356, 704]
    assert stream.bytes(2, 2).tolist() == [[112, 113], [95, 221]]
    draws = Counter(stream.between(-2, 2) for _ in range(5000))
    assert sorted(draws) == [-2, -1, 0, 1, 2]
    assert max(draws.values()) < 1.2 * min(draws.values())
    row = list(range(20))
    stream.shuffle(row)
    assert sorted(row) == list(range(20)) != row


def test_a_scene_depends_on_seed_split_and_index_only() -> None:
    first = draw_scene(3, 1, 5)
    draw_scene(3, 1, 6)
    again = draw_scene(3, 1, 5)
    assert first.objects == again.objects
    assert (first.image == again.image).all()
    for other in (draw_scene(4, 1, 5), draw_scene(3, 2, 5), draw_scene(3, 1, 6)):
        assert (first.image != other.image).any()


def test_every_object_shows_half_of_itself_and_the_largest_is_clearly_the_largest() -> None:
    counts: Counter[int] = Counter()
    hidden = 0
    for index in range(240):
        scene = draw_scene(0, 0, index)
        counts[len(scene.objects)] += 1
        whole = np.array([np.count_nonzero(item.coverage >= 8) for item in scene.objects])
        assert (scene.areas >= MIN_VISIBLE * whole).all()
        hidden += int((scene.areas < whole).sum())
        ranked = sorted(scene.areas.tolist(), reverse=True)
        if len(ranked) > 1:
            assert ranked[0] >= MIN_DOMINANCE * ranked[1]
        for item in scene.objects:
            height, width = item.coverage.shape
            assert 0 < item.x <= 63 - width
            assert 0 < item.y <= 63 - height
            assert 8 <= max(height, width) <= 40
    assert set(counts) == {1, 2, 3, 4, 5}
    assert hidden > 10  # some overlap


def test_classes_are_balanced_in_every_run_of_eight_scenes() -> None:
    for block in range(25):
        found = [draw_scene(0, 1, 8 * block + i).largest.shape for i in range(8)]
        assert sorted(found) == sorted(SHAPES)


def test_shapes_of_one_size_differ_in_most_of_their_outline() -> None:
    def canvas(shape: str, tilt: int) -> np.ndarray:
        cover = coverage(shape, 12, tilt).astype(float) / 16
        out = np.zeros((24, 24))
        y, x = (24 - cover.shape[0]) // 2, (24 - cover.shape[1]) // 2
        out[y : y + cover.shape[0], x : x + cover.shape[1]] = cover
        return out

    for a, b in itertools.combinations(SHAPES, 2):
        for tilt_a, tilt_b in itertools.product(TILTS, TILTS):
            first, second = canvas(a, tilt_a), canvas(b, tilt_b)
            overlap = np.minimum(first, second).sum() / np.maximum(first, second).sum()
            assert overlap < 0.85, (a, b, tilt_a, tilt_b)


def test_coverage_of_a_square_and_a_circle_is_their_area() -> None:
    assert coverage("square", 20, 0).astype(int).sum() / 16 == pytest.approx((0.86 * 20) ** 2, rel=0.03)
    assert coverage("circle", 30, 0).astype(int).sum() / 16 == pytest.approx(np.pi * 15**2, rel=0.01)
    assert coverage("ring", 30, 0).astype(int).sum() / 16 == pytest.approx(np.pi * 15**2 * 0.73, rel=0.02)
    assert coverage("heart", 20, 0)[:, : coverage("heart", 20, 0).shape[1] // 2].sum() > 0
    assert (coverage("heart", 20, 0) == coverage("heart", 20, 0)[:, ::-1]).all()
    assert coverage("triangle", 20, 0)[0].sum() < coverage("triangle", 20, 0)[-1].sum()  # tip up


def test_colors_stay_apart_after_lighting_and_noise() -> None:
    seen: defaultdict[str, list[np.ndarray]] = defaultdict(list)
    for index in range(200):
        scene = draw_scene(0, 0, index)
        for number, item in enumerate(scene.objects):
            inside = (scene.instances == number) & ~scene.mixed
            if inside.any():
                mean = scene.image[inside].mean(0)
                seen[item.color].append(mean / np.linalg.norm(mean))
    centers = {color: np.mean(values, 0) for color, values in seen.items()}
    assert set(centers) == set(COLORS)
    for color, values in seen.items():
        for value in values:
            assert min(centers, key=lambda c: float(np.linalg.norm(centers[c] - value))) == color


def test_backgrounds_are_muted_and_of_every_family() -> None:
    textures = {family: texture(Stream(9), family) for family in BACKGROUNDS}
    assert len({t.tobytes() for t in textures.values()}) == 6
    for family, blend in textures.items():
        assert blend.shape == (64, 64)
        assert 0 <= blend.min() <= blend.max() <= 256
        assert (blend.std() == 0) == (family == "plain")
    for number in range(60):
        muted = background(Stream(9, number))
        assert (muted.max(2) - muted.min(2)).max() <= 40
        assert 10 <= muted.min() <= muted.max() <= 255


def test_png_files_are_stored_and_decode_to_the_same_pixels() -> None:
    for shape in ((5, 7), (64, 64, 3)):
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        with Image.open(io.BytesIO(encode_png(pixels))) as image:
            assert (np.asarray(image) == pixels).all()


def test_run_lengths_are_those_of_pycocotools() -> None:
    rng = np.random.default_rng(0)
    for density in (0, 0.1, 0.5, 1):
        mask = rng.random((9, 7)) < density
        official = coco_mask.frPyObjects({"size": [9, 7], "counts": run_lengths(mask)}, 9, 7)
        assert official["counts"] == coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]


# The questions


def item(shape: str, color: str, x: int, y: int, size: int = 12) -> Object:
    return Object(shape, color, size, 0, x, y)


def test_the_possible_questions_about_a_scene_are_these() -> None:
    objects = (item("circle", "red", 5, 40, 24), item("ring", "blue", 40, 38), item("ring", "red", 40, 2))
    asked = {(q.template, q.text): q.answer for q in possible_questions(objects)}
    few = {(t, text): a for (t, text), a in asked.items() if t not in ("any_shape", "any_color", "more")}
    counts = {("count_shape", f"How many {s} are there?"): "0" for s in ("diamonds", "hearts", "squares", "stars")}
    counts |= {("count_shape", f"How many {s} are there?"): "0" for s in ("crosses", "triangles")}
    counts |= {("count_color", f"How many {c} objects are there?"): "0" for c in COLORS}
    assert few == counts | {
        ("color_of_shape", "What color is the circle?"): "red",
        ("shape_of_color", "What shape is the blue object?"): "ring",
        ("count_all", "How many objects are there?"): "3",
        ("count_shape", "How many circles are there?"): "1",
        ("count_shape", "How many rings are there?"): "2",
        ("count_color", "How many red objects are there?"): "2",
        ("count_color", "How many blue objects are there?"): "1",
        ("any_both", "Is there a red circle?"): "yes",
        ("any_both", "Is there a blue circle?"): "no",
        ("any_both", "Is there a red ring?"): "yes",
        ("any_both", "Is there a blue ring?"): "yes",
    }
    assert asked["any_shape", "Is there a star?"] == "no"
    assert asked["any_shape", "Is there a ring?"] == "yes"
    assert asked["any_color", "Is there a cyan object?"] == "no"
    assert asked["more", "Are there more rings than circles?"] == "yes"
    assert asked["more", "Are there more stars than circles?"] == "no"
    assert ("more", "Are there more stars than hearts?") not in asked  # a tie


def test_relations_are_asked_between_unique_shapes_that_clearly_differ() -> None:
    asked = {q.text: q.answer for q in possible_questions([item("star", "red", 2, 2, 24), item("ring", "blue", 40, 5)])}
    assert asked["Is the star larger than the ring?"] == "yes"
    assert asked["Is the ring larger than the star?"] == "no"
    assert asked["Is the star left of the ring?"] == "yes"
    assert asked["Is the ring left of the star?"] == "no"
    assert asked["What color is the object left of the ring?"] == "red"
    assert "What color is the object left of the star?" not in asked
    assert "Is the star above the ring?" not in asked  # centres on about the same height
    below = {q.text: q.answer for q in possible_questions([item("star", "red", 2, 2), item("ring", "blue", 3, 40)])}
    assert below["Is the star above the ring?"] == "yes"
    assert "Is the star left of the ring?" not in below
    assert "Is the star larger than the ring?" not in below
    assert not any(text.startswith("What color is the object left") for text in below)


def test_a_true_answer_is_given_at_least_seven_times_and_scores_one() -> None:
    stream = Stream(0)
    kinds: Counter[int] = Counter()
    for question in itertools.islice(itertools.cycle(possible_questions(draw_scene(0, 0, 3).objects)), 1000):
        answers = human_answers(question, stream)
        assert len(answers) == 10
        assert set(answers) <= set(TEMPLATES[question.template].answers)
        assert answer_accuracy(question.answer, answers) == 1
        kinds[answers.count(question.answer)] += 1
    assert set(kinds) == {7, 9, 10}
    assert kinds[10] > kinds[9] > kinds[7] > 0


def test_people_miscount_by_one() -> None:
    count = next(q for q in possible_questions([item("star", "red", 2, 2)]) if q.text == "How many stars are there?")
    stream = Stream(1)
    assert {a for _ in range(200) for a in human_answers(count, stream)} == {"0", "1", "2"}


def majority_accuracy(train: list[dict], asked: dict[int, str], test: list[dict], texts: dict[int, str]) -> float:
    """Official accuracy of the best answer to each question text on the training split."""
    votes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for entry in train:
        votes[asked[entry["question_id"]]].update(a["answer"] for a in entry["answers"])
    overall = Counter(entry["multiple_choice_answer"] for entry in train).most_common(1)[0][0]
    scores = []
    for entry in test:
        known = votes[texts[entry["question_id"]]].most_common(1)
        answers = [a["answer"] for a in entry["answers"]]
        scores.append(answer_accuracy(known[0][0] if known else overall, answers))
    return float(np.mean(scores))


def answers_to(text: str) -> tuple[str, ...]:
    """Every plausible answer to a question."""
    if text.startswith("What"):
        return tuple(COLORS) if "color" in text else SHAPES
    if text.startswith("How many"):
        return tuple("12345" if text == "How many objects are there?" else "01234")
    return ("yes", "no")


def check_balance(root: Path) -> None:
    texts = {s: {q["question_id"]: q["question"] for q in load(root, s, "questions")} for s in SPLITS}
    annotations = {s: load(root, s, "annotations") for s in SPLITS}
    for split in SPLITS:
        scenes = len({a["image_id"] for a in annotations[split]})
        assert len(annotations[split]) == PER_SCENE * scenes
        answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for entry in annotations[split]:
            answers[texts[split][entry["question_id"]]][entry["multiple_choice_answer"]] += 1
        for text, counts in answers.items():
            domain = answers_to(text)
            assert set(counts) <= set(domain)
            lead = 4 if len(domain) > 5 else 2  # levels out over the dozens of texts of one kind
            assert max(counts.values()) <= min(counts[answer] for answer in domain) + lead, (text, counts)
    for split in ("val", "test"):
        blind = majority_accuracy(annotations["train"], texts["train"], annotations[split], texts[split])
        assert 0.2 < blind <= 0.40


def test_the_best_predictor_from_the_question_alone_stays_low(suite: Path) -> None:
    check_balance(suite)


@pytest.mark.slow
def test_the_suite_of_default_size_is_balanced_and_the_same_on_every_machine(tmp_path: Path) -> None:
    shapes.make(tmp_path / "suite")
    check_balance(tmp_path / "suite")
    marker = orjson.loads((tmp_path / "suite/shapes.json").read_bytes())
    assert marker["sizes"] == {"train": 2000, "val": 500, "test": 500}
    assert marker["sha256"] == "6a8e0da73ea49c93028e111d3315521a0e7e5eeeca25404fd60af633c36f1c3c"


def test_two_questions_in_five_ask_for_a_color_or_shape(suite: Path) -> None:
    for split in ("train", "test"):
        kinds = Counter(entry["question_type"] for entry in load(suite, split, "annotations"))
        total = sum(kinds.values())
        assert kinds["what color is the"] + kinds["what shape is the"] > total * 0.38
        assert kinds["how many"] > total * 0.15
        types = {entry["answer_type"] for entry in load(suite, split, "annotations")}
        assert types == {"yes/no", "number", "other"}


def test_an_examiner_never_asks_the_same_text_twice_about_one_scene() -> None:
    examiner = Examiner()
    for index in range(40):
        questions = examiner.ask(draw_scene(0, 0, index), Stream(index))
        assert len({q.text for q in questions}) == len(questions)


# The files


def test_two_makes_are_byte_identical_and_another_seed_is_not(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        shapes.make(tmp_path / name, TINY, seed)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    first, other = files(tmp_path / "a"), files(tmp_path / "c")
    assert first["shapes.json"] != other["shapes.json"]
    assert first["coco/train/000000000001.png"] != other["coco/train/000000000001.png"]
    marker = orjson.loads(first["shapes.json"])
    assert marker["sha256"] == "02d4da8e12cc221c141e72ded1eadf6a44765aaf40b08808ffc26d3f91be2788"


def test_a_smaller_suite_is_the_beginning_of_a_larger_one(tmp_path: Path, suite: Path) -> None:
    shapes.make(tmp_path / "a", TINY)
    small, large = files(tmp_path / "a"), files(suite)
    for name in small:
        if name.endswith(".png"):
            assert small[name] == large[name]
    for split in SPLITS:
        for what in ("images", "boxes", "questions", "annotations"):
            part, whole = load(tmp_path / "a", split, what), load(suite, split, what)
            assert part == whole[: len(part)]
            assert part


def test_every_scene_is_the_same_file_in_the_four_trees(suite: Path) -> None:
    for split in SPLITS:
        originals = {int(p.stem): p for p in (suite / "coco" / split).iterdir()}
        vqa = {int(p.stem.split("_")[-1]): p for p in (suite / "vqa" / f"{split}2014").iterdir()}
        folders = {int(p.stem): p for p in (suite / "imagenet" / split).rglob("*.png")}
        streets = {
            int(p.name.split("_")[2]): p for p in (suite / "cityscapes/leftImg8bit" / split / "shapes").iterdir()
        }
        assert originals.keys() == vqa.keys() == folders.keys() == streets.keys()
        for number, path in originals.items():
            for other in (vqa[number], folders[number], streets[number]):
                assert other.samefile(path) or other.read_bytes() == path.read_bytes()


def test_no_scene_of_one_split_is_in_another(suite: Path) -> None:
    hashes = {s: {hashlib.sha256(p.read_bytes()).hexdigest() for p in (suite / "coco" / s).iterdir()} for s in SPLITS}
    ids = {s: {p.stem for p in (suite / "coco" / s).iterdir()} for s in SPLITS}
    for group in (hashes, ids):
        assert [len(group[s]) for s in SPLITS] == [400, 80, 240]
        assert not group["train"] & group["val"]
        assert not group["train"] & group["test"]
        assert not group["val"] & group["test"]


def test_the_instances_are_valid_for_pycocotools_and_agree_with_the_label_maps(suite: Path, capsys) -> None:
    coco = COCO(suite / "coco/annotations/instances_val.json")
    assert {c["name"]: c["id"] for c in coco.loadCats(coco.getCatIds())} == CATEGORY_IDS
    label_of = {CATEGORY_IDS[s]: LABEL_IDS[s] for s in SHAPES}
    void = 0
    for image_id in coco.getImgIds():
        name = f"shapes_000001_{image_id:06d}_gtFine_labelIds.png"
        labels = np.asarray(Image.open(suite / "cityscapes/gtFine/val/shapes" / name))
        expected = np.full((64, 64), BACKGROUND_ID)
        for annotation in coco.imgToAnns[image_id]:
            mask = coco.annToMask(annotation).astype(bool)
            assert mask.sum() == annotation["area"]
            assert coco_mask.toBbox(coco.annToRLE(annotation)).tolist() == annotation["bbox"]
            assert (expected[mask] == BACKGROUND_ID).all()  # visible parts do not overlap
            expected[mask] = label_of[annotation["category_id"]]
        assert (labels == expected)[labels != VOID_ID].all()
        void += int((labels == VOID_ID).sum())
    assert 0.01 < void / (80 * 64 * 64) < 0.15


def test_the_class_folder_is_the_category_of_the_largest_area(suite: Path) -> None:
    boxes: defaultdict[int, list[tuple[float, int]]] = defaultdict(list)
    for box in load(suite, "test", "boxes"):
        boxes[box["image_id"]].append((box["area"], box["category_id"]))
    for path in (suite / "imagenet/test").rglob("*.png"):
        assert CATEGORY_IDS[path.parent.name] == max(boxes[int(path.stem)])[1]
    assert {len(list(folder.iterdir())) for folder in (suite / "imagenet/test").iterdir()} == {30}


def test_counting_questions_agree_with_the_boxes_of_the_other_tree(suite: Path) -> None:
    count: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for box in load(suite, "test", "boxes"):
        count[box["image_id"]][box["category_id"]] += 1
    truth = {a["question_id"]: a for a in load(suite, "test", "annotations")}
    checked = 0
    for question in load(suite, "test", "questions"):
        annotation = truth[question["question_id"]]
        assert annotation["image_id"] == question["image_id"]
        ten = [a["answer"] for a in annotation["answers"]]
        assert Counter(ten).most_common(1)[0][0] == annotation["multiple_choice_answer"]
        assert [a["answer_id"] for a in annotation["answers"]] == list(range(1, 11))
        for shape, number in CATEGORY_IDS.items():
            if question["question"] in (f"How many {shape}s are there?", f"How many {shape}es are there?"):
                assert annotation["multiple_choice_answer"] == str(count[question["image_id"]][number])
                checked += 1
            if question["question"] == f"Is there a {shape}?":
                present = count[question["image_id"]][number] > 0
                assert annotation["multiple_choice_answer"] == ("yes" if present else "no")
                checked += 1
    assert checked > 200


# Making and finding the suite


def test_an_interrupted_make_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        assert total == 14
        if done == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shapes.make(tmp_path / "suite", TINY, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


MAKE = "import sys; from pathlib import Path; from harness.data import shapes; shapes.make(Path(sys.argv[1]), {sizes})"


def test_a_killed_make_leaves_no_suite_and_the_next_one_succeeds(tmp_path: Path) -> None:
    root = tmp_path / "suite"
    process = subprocess.Popen([sys.executable, "-c", MAKE.format(sizes={"train": 90000}), str(root)])
    try:
        deadline = time.monotonic() + 200
        while not list(tmp_path.rglob("*_gtFine_labelIds.png")) and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not root.exists()
    assert not shapes.is_complete(root)
    shapes.make(root, TINY)
    assert shapes.is_complete(root)


def test_two_makes_at_once_leave_one_whole_suite(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MAKE.format(sizes=TINY), str(tmp_path / "suite")]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    shapes.make(tmp_path / "expected", TINY)
    assert files(tmp_path / "suite") == files(tmp_path / "expected")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["expected", "suite"]


def test_a_suite_is_replaced_by_make_and_left_alone_by_ensure(tmp_path: Path) -> None:
    root = tmp_path / "suite"
    assert not shapes.is_complete(root)
    shapes.make(root, TINY, seed=1)
    before = files(root)
    assert shapes.ensure(root) == root
    assert files(root) == before
    next((root / "coco/val").iterdir()).unlink()
    shapes.make(root, TINY, seed=1)  # repairs
    assert files(root) == before
    shapes.make(root, {**TINY, "val": 1})
    assert len(list((root / "coco/val").iterdir())) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["suite"]


@pytest.mark.parametrize("marker", ["", "[]", "{", '{"version": 0}', '{"version": "1"}'])
def test_a_suite_of_another_version_is_not_complete(tmp_path: Path, marker: str) -> None:
    shapes.make(tmp_path / "suite", TINY)
    (tmp_path / "suite/shapes.json").write_text(marker)
    assert not shapes.is_complete(tmp_path / "suite")


def test_a_folder_with_other_content_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").touch()
    with pytest.raises(HarnessError, match="photos: is not an embedded suite and will not be overwritten"):
        shapes.make(tmp_path / "photos", TINY)
    assert (tmp_path / "photos/cat.jpg").exists()
    (tmp_path / "file").touch()
    with pytest.raises(HarnessError, match="is not an embedded suite"):
        shapes.make(tmp_path / "file", TINY)
    (tmp_path / "empty").mkdir()
    shapes.make(tmp_path / "empty", TINY)
    assert shapes.is_complete(tmp_path / "empty")


@pytest.mark.parametrize(
    ("sizes", "seed", "message"),
    [
        ({"trian": 5}, 0, "sizes: 'trian' is not a split; did you mean 'train'"),
        ({"train": 0}, 0, r"sizes\.train: 0 is not usable"),
        ({"val": 100_000}, 0, r"sizes\.val: 100000 is not usable"),
        ({}, -1, "seed: -1 is negative"),
    ],
)
def test_unusable_sizes_and_seeds_are_refused(tmp_path: Path, sizes: dict, seed: int, message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        shapes.make(tmp_path / "suite", sizes, seed)
    assert not (tmp_path / "suite").exists()


def test_the_default_folder_follows_the_cache_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    assert shapes.default_root() == tmp_path / "shapes-v1"
