"""COCO's layout."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.cards import DatasetCard
from harness.data.checking import check

Found = Callable[..., list[tuple[str, str, str, str]]]
Edit = Callable[[str, Callable[[dict[str, Any]], object]], None]


def test_a_good_data_set_has_no_findings(coco: DatasetCard) -> None:
    report = check([coco], workers=0)
    assert report.findings == ()
    assert report.cards[0].splits["val"].counts == {"images": 2, "boxes": 2, "categories": 2}


@pytest.mark.parametrize(
    ("change", "code", "item"),
    [
        ({"bbox": [1, 1, 0, 3]}, "box-empty", "100"),
        ({"bbox": [1, 1, 4, -3]}, "box-empty", "100"),
        ({"bbox": [5, 1, 4.1, 3]}, "box-outside", "100"),
        ({"bbox": [-1.5, 1, 4, 3]}, "box-outside", "100"),
        ({"bbox": [1, 1, 4]}, "entry-invalid", "100"),
        ({"bbox": "box"}, "entry-invalid", "100"),
        ({"category_id": 2}, "category-unknown", "100"),
        ({"image_id": 99}, "annotation-orphaned", "100"),
        ({"iscrowd": 2}, "entry-invalid", "100"),
        ({"id": 101}, "duplicate-id", "101"),
        ({"id": None}, "entry-invalid", "annotations[0]"),
    ],
)
def test_what_is_wrong_with_an_annotation_is_told(
    coco: DatasetCard, edit: Edit, found: Found, change: dict[str, Any], code: str, item: str
) -> None:
    edit("train.json", lambda d: d["annotations"][0].update(change))
    first, *others = found(coco)
    assert first == (code, "train", "train.json", item)
    # The class of the lost annotation is then evaluated and not trained on.
    assert {other[0] for other in others} <= {"class-without-training"}


@pytest.mark.parametrize("box", [[4.5, 1, 4.5, 3], [-1, -1, 4, 3], [0, 0, 8, 6]])
def test_boxes_up_to_a_pixel_outside_are_coco_s_rounding(
    coco: DatasetCard, edit: Edit, found: Found, box: list[float]
) -> None:
    edit("train.json", lambda d: d["annotations"][0].update(bbox=box))
    assert found(coco) == []


def test_what_is_wrong_with_images_and_categories_is_told_at_once(
    coco: DatasetCard, root: Path, edit: Edit, found: Found, photo: Callable[..., Path]
) -> None:
    def change(document: dict[str, Any]) -> None:
        document["images"][0].update(width=9)
        document["images"] += [
            {"id": 2, "file_name": "again.jpg", "width": 8, "height": 6},
            {"id": 5, "file_name": "gone.jpg", "width": 8, "height": 6},
            {"id": 6, "file_name": "../train.json", "width": 8, "height": 6},
            {"id": 7, "file_name": "000000000001.jpg", "width": 8, "height": 0},
            {"file_name": "nameless.jpg"},
            3,
        ]
        document["categories"].append({"id": 18, "name": "cat"})

    edit("train.json", change)
    photo(root / "train" / "extra.jpg", 77)
    assert found(coco) == [
        ("count-differs", "train", "train.json", "images"),
        ("duplicate-id", "train", "train.json", "2"),
        ("duplicate-id", "train", "train.json", "7"),
        ("duplicate-id", "train", "train.json", "18"),
        ("entry-invalid", "train", "train.json", "6"),
        ("entry-invalid", "train", "train.json", "7"),
        ("entry-invalid", "train", "train.json", "images[6]"),
        ("entry-invalid", "train", "train.json", "images[7]"),
        ("image-missing", "train", "train/gone.jpg", "5"),
        ("size-mismatch", "train", "train/000000000001.jpg", "1"),
        ("image-unlisted", "train", "train/extra.jpg", "extra.jpg"),
    ]


def test_a_class_that_is_only_evaluated_is_a_warning(coco: DatasetCard, edit: Edit, found: Found) -> None:
    edit("train.json", lambda d: d["annotations"][1].update(category_id=1))
    assert found(coco) == [("class-without-training", "val", "val.json", "dog")]


def test_broken_and_missing_annotation_files_do_not_hide_the_rest(coco: DatasetCard, root: Path, found: Found) -> None:
    (root / "train.json").write_text('{"images": [')
    (root / "val.json").unlink()
    (root / "val/000000000011.jpg").write_bytes(b"")
    codes = [finding[:3] for finding in found(coco)]
    assert ("file-unreadable", "train", "train.json") in codes
    assert ("file-missing", "val", "val.json") in codes


def test_splits_may_share_a_folder(coco: DatasetCard, root: Path, found: Found) -> None:
    for path in (root / "val").iterdir():
        path.rename(root / "train" / path.name)
    (root / "val").rmdir()
    (root / "train/extra.jpg").write_bytes((root / "train/000000000001.jpg").read_bytes())
    raw = json.loads(coco.model_dump_json())
    raw["splits"]["val"]["images"] = "train"
    assert found(DatasetCard.model_validate(raw)) == [("image-unlisted", "train", "train/extra.jpg", "extra.jpg")]


def test_an_image_of_two_splits_is_told_once_by_content_or_by_id(
    coco: DatasetCard, root: Path, edit: Edit, found: Found
) -> None:
    (root / "val/000000000011.jpg").write_bytes((root / "train/000000000001.jpg").read_bytes())
    edit("val.json", lambda d: (d["images"][0].update(id=1), d["annotations"][0].update(image_id=1)))
    edit("val.json", lambda d: (d["images"][1].update(id=2), d["annotations"][1].update(image_id=2)))
    assert found(coco) == [
        ("shared-image", "val", "val/000000000011.jpg", "1"),
        ("shared-image", "val", "val/000000000012.jpg", "2"),
    ]
