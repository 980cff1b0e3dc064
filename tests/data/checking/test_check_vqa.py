"""VQA v2's layout."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.cards import DatasetCard
from harness.data.checking import check

Found = Callable[..., list[tuple[str, str, str, str]]]
Edit = Callable[[str, Callable[[dict[str, Any]], object]], None]


def test_a_good_data_set_has_no_findings(vqa: DatasetCard) -> None:
    report = check([vqa], workers=0)
    assert report.findings == ()
    assert report.cards[0].splits["train"].counts == {"images": 2, "questions": 4}


@pytest.mark.parametrize(
    ("change", "code", "item"),
    [
        (lambda a: a["answers"].pop(), "answers-not-ten", "10"),
        (lambda a: a.update(answers="cat"), "answers-not-ten", "10"),
        (lambda a: a["answers"][3].pop("answer"), "entry-invalid", "10"),
        (lambda a: a.update(image_id=2), "entry-invalid", "10"),
        (lambda a: a.pop("multiple_choice_answer"), "entry-invalid", "10"),
    ],
)
def test_what_is_wrong_with_an_annotation_is_told(
    vqa: DatasetCard, edit: Edit, found: Found, change: Callable[[dict[str, Any]], object], code: str, item: str
) -> None:
    edit("a_train.json", lambda d: change(d["annotations"][0]))
    assert found(vqa) == [(code, "train", "a_train.json", item)]


def test_orphans_gaps_and_repetitions_are_told_at_once(
    vqa: DatasetCard, root: Path, edit: Edit, found: Found, photo: Callable[..., Path]
) -> None:
    edit("a_train.json", lambda d: d["annotations"][0].update(question_id=999))
    edit("a_train.json", lambda d: d["annotations"][2].update(question_id=11, image_id=1))
    edit("q_val.json", lambda d: d["questions"].append(d["questions"][0]))
    edit("q_val.json", lambda d: d["questions"].append({"question_id": 77, "image_id": -1, "question": "?"}))
    (root / "val/COCO_val_000000000004.jpg").unlink()
    photo(root / "val/COCO_val_000000000008.jpg", 8)
    photo(root / "val/of_another_set.jpg", 9)
    assert found(vqa) == [
        ("annotation-missing", "train", "a_train.json", "10"),
        ("annotation-missing", "train", "a_train.json", "20"),
        ("annotation-orphaned", "train", "a_train.json", "999"),
        ("duplicate-id", "train", "a_train.json", "11"),
        ("duplicate-id", "val", "q_val.json", "30"),
        ("entry-invalid", "val", "q_val.json", "questions[5]"),
        ("image-missing", "val", "val/COCO_val_000000000004.jpg", "4"),
        ("image-unlisted", "val", "val/COCO_val_000000000008.jpg", "COCO_val_000000000008.jpg"),
    ]


def test_images_that_another_task_trains_on_are_found_by_content_and_equal_numbers_are_noted(
    vqa: DatasetCard, coco: DatasetCard, root: Path, edit: Edit, photo: Callable[..., Path]
) -> None:
    seen = (root / "train/000000000001.jpg").read_bytes()
    (root / "val/COCO_val_000000000003.jpg").write_bytes(seen)
    other = coco.model_copy(update={"name": "boxes"})
    edit("train.json", lambda d: (d["images"][0].update(id=3), d["annotations"][0].update(image_id=3)))
    edit("train.json", lambda d: (d["images"][1].update(id=4), d["annotations"][1].update(image_id=4)))
    report = check([other, vqa], workers=0)
    between = [f for f in report.findings if f.code in ("shared-image", "same-number")]
    assert [(f.code, f.card, f.split, f.id) for f in between] == [
        ("shared-image", "tiny", "val", "3"),
        ("same-number", "tiny", "val", "4"),
    ]
    assert "training image 3 of boxes" in between[0].message
