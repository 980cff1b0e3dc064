"""A submission over four data sets of one's own, whose images differ in size, each with the recipe of its task."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from tests_support import document

from harness.errors import HarnessError
from harness.validation import check

CARD = {"version": "1", "title": "t", "license": "none", "how_to_get": "make it"}
SIZES = [(40, 50), (50, 40), (70, 130), (33, 33), (90, 61), (64, 64), (100, 30), (48, 96)]  # height, width


def picture(path: Path, size: tuple[int, int], seed: int, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


def classification(root: Path) -> dict[str, Any]:
    for split in ("train", "val"):
        for number, size in enumerate(SIZES):
            picture(root / split / "ab"[number % 2] / f"{number}.jpg", size, number)
    return {"adapter": "imagefolder", "splits": {s: {"images": s, "size": 8} for s in ("train", "val")}}


def detection(root: Path) -> dict[str, Any]:
    for split in ("train", "val"):
        content: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
        content["categories"] = [{"id": 3, "name": "a"}, {"id": 70, "name": "b"}]
        for number, (height, width) in enumerate(SIZES):
            picture(root / split / f"{number}.png", (height, width), number)
            content["images"].append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
            if number != 3:  # one image has no box
                content["annotations"].append(
                    {
                        "id": number + 1, "image_id": number, "category_id": (3, 70)[number % 2], "iscrowd": 0,
                        "bbox": [5, 5, width / 2, height / 2], "area": width * height / 4,
                    }
                )  # fmt: skip
        (root / f"{split}.json").write_text(json.dumps(content))
    splits = {s: {"images": s, "annotations": f"{s}.json", "size": 8} for s in ("train", "val")}
    return {"adapter": "coco", "splits": splits}


def segmentation(root: Path) -> dict[str, Any]:
    """The last training image has no label map, and the card says to leave it out."""
    for split in ("train", "val"):
        for number, size in enumerate(SIZES):
            name = f"city_000000_{number:06d}"
            picture(root / "images" / split / f"{name}_leftImg8bit.png", size, number)
            if split == "val" or number < 7:
                label = np.random.default_rng(number).choice([0, 7, 8], size).astype(np.uint8)
                (root / "labels" / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(label).save(root / "labels" / split / f"{name}_gtFine_labelIds.png")
    classes = [{"name": "void", "id": 0, "evaluated": False}, {"name": "road", "id": 7}, {"name": "walk", "id": 8}]
    splits = {
        split: {"images": f"images/{split}", "labels": f"labels/{split}", "size": size}
        for split, size in (("train", 7), ("val", 8))
    }
    return {"adapter": "cityscapes", "splits": splits, "classes": classes, "missing_labels": "leave_out"}


def vqa(root: Path) -> dict[str, Any]:
    for split in ("train", "val"):
        questions, annotations = [], []
        for number, size in enumerate(SIZES):
            picture(root / split / f"COCO_{number:012d}.jpg", size, number)
            for which in range(1 + number % 3):
                key = {"question_id": 10 * number + which, "image_id": number}
                questions.append(key | {"question": f"is there {'one' if which else 'another'} thing"})
                answers = [{"answer": "yes" if n < 7 else "no", "answer_id": n} for n in range(10)]
                kind = {"question_type": "is there", "answer_type": "yes/no"}
                annotations.append(key | kind | {"multiple_choice_answer": "yes", "answers": answers})
        (root / f"q-{split}.json").write_text(json.dumps({"questions": questions}))
        (root / f"a-{split}.json").write_text(json.dumps({"annotations": annotations}))
    splits = {
        s: {"images": s, "image_prefix": "COCO_", "questions": f"q-{s}.json", "annotations": f"a-{s}.json", "size": 15}
        for s in ("train", "val")
    }
    return {"adapter": "vqa", "splits": splits, "answers": 5}


MAKERS = {"classification": classification, "detection": detection, "segmentation": segmentation, "vqa": vqa}
RECIPES: dict[str, list[dict[str, Any]]] = {
    "standard": [
        {"dataset": "my-classification", "image_size": 64, "resize": "crop", "crop": 0.3, "augment": "randaugment"},
        {"dataset": "my-detection", "image_size": [64, 96], "resize": "fit", "scale": [0.6, 1.0], "flip": 0.5},
        {"dataset": "my-segmentation", "image_size": [48, 64], "resize": "native", "scale": [0.5, 2.0],
         "augment": "color", "sliding_window": True},
        {"dataset": "my-vqa", "image_size": 64, "resize": "crop", "crop_fraction": 1.0},
    ],
    "cached": [
        {"dataset": "my-classification", "image_size": 64, "cache": 64, "flip": 0.5, "fraction": 0.5},
        {"dataset": "my-detection", "image_size": 64, "cache": 80, "crop": 0.5},
        {"dataset": "my-segmentation", "image_size": [64, 96], "resize": "fit"},
        {"dataset": "my-vqa", "image_size": 64, "cache": 64},
    ],
}  # fmt: skip


@pytest.fixture
def cards(tmp_path: Path) -> None:
    """Four cards in ``./datasets``, and nothing else: no code."""
    (tmp_path / "datasets").mkdir()
    for task, make in MAKERS.items():
        root = tmp_path / "data" / task
        card = CARD | {"name": f"my-{task}", "task": task, "root": str(root)} | make(root)
        (tmp_path / "datasets" / f"my-{task}.yaml").write_text(yaml.safe_dump(card))


@pytest.mark.slow
@pytest.mark.usefixtures("cards")
@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_cards_alone_add_data_sets_and_images_of_any_size_train_and_score(
    recipe: str, command: Any, tmp_path: Path
) -> None:
    submission = document(steps=4) | {"tasks": [{"batch_size": 2} | task for task in RECIPES[recipe]]}
    (tmp_path / "mix.yaml").write_text(yaml.safe_dump(submission))
    done = command(
        "submit", "mix.yaml", "--json", "-q", "--set", "training.workers=1" if recipe == "cached" else "seeds=[0]"
    )
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert record["rankable"], record["unrankable_because"]
    tasks = record["tasks"]
    assert {name: task["images"] for name, task in tasks.items()} == {f"my-{task}": 8 for task in MAKERS}
    assert 0 <= tasks["my-classification"]["metrics"]["top1"] <= 1
    assert 0 < tasks["my-segmentation"]["metrics"]["miou"] < 1
    assert tasks["my-segmentation"]["preprocessing"]["resize"] == ("native" if recipe == "standard" else "fit")
    folder = next((tmp_path / "runs").iterdir()) / "predictions" / "my-segmentation"
    for number, (height, width) in enumerate(SIZES):
        (path,) = folder.glob(f"city_000000_{number:06d}*")
        assert Image.open(path).size == (width, height)
    verified = command("leaderboard", "--verify")
    assert verified.returncode == 0, verified.stdout
    checked = command("data", "check", *(f"my-{task}" for task in MAKERS), "--json")
    codes = {finding["code"] for finding in json.loads(checked.stdout)["findings"]}
    # Pictures of one size and seed are the same everywhere; one label map is missing, which the card allows.
    assert codes == {"shared-image", "same-number", "left-out"}, checked.stdout


@pytest.mark.usefixtures("cards")
@pytest.mark.parametrize(
    ("task", "file", "old", "new"),
    [
        ("vqa", "a-val.json", '"answer_type"', '"answer_kind"'),
        ("detection", "val.json", '"id": 1, "image_id"', '"id": 0, "image_id"'),
    ],
)
def test_ground_truth_that_scoring_refuses_is_told_before_training(
    task: str, file: str, old: str, new: str, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data" / task / file
    path.write_text(path.read_text().replace(old, new))
    submission = document(steps=4) | {"tasks": [{"dataset": f"my-{task}", "batch_size": 2, "image_size": 64}]}
    (tmp_path / "mix.yaml").write_text(yaml.safe_dump(submission))
    monkeypatch.chdir(tmp_path)  # where the cards are
    with pytest.raises(HarnessError, match=re.escape(f"{file}: annotations[0]")):
        check(Path("mix.yaml"), [])
    done = command("submit", "mix.yaml")
    assert done.returncode == 2
    assert f"{file}: annotations[0]" in done.stderr
    assert "training" not in done.stderr
