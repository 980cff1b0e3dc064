import copy
import json
from pathlib import Path

import numpy as np
import pytest

from harness.cards import DatasetCard
from harness.data.detection import CocoDetection
from harness.errors import HarnessError

DOCUMENT = {
    "images": [
        {"id": 30, "file_name": "c.png", "height": 6, "width": 8},
        {"id": 4, "file_name": "sub/a.png", "height": 6, "width": 8},
        {"id": 5, "file_name": "b.png", "height": 6, "width": 8},
    ],
    "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 30, "category_id": 18, "bbox": [1, 2, 3.5, 2], "iscrowd": 0, "area": 7},
        {"id": 2, "image_id": 4, "category_id": 90, "bbox": [0.1, 0.2, 0.7, 0.1], "iscrowd": 1, "area": 7},
        {"id": 3, "image_id": 30, "category_id": 1, "bbox": [0, 0, 0, 3], "iscrowd": 0, "area": 0},
        {"id": 4, "image_id": 30, "category_id": 1, "bbox": [0, 0, 8, 6], "iscrowd": 0, "area": 48},
        {"id": 5, "image_id": 4, "category_id": 1, "bbox": [1, 1, 2, -1], "area": 0},
    ],
}


@pytest.fixture
def card(tmp_path: Path, card_for, write_image) -> DatasetCard:
    for seed, name in enumerate(("c.png", "sub/a.png", "b.png")):
        write_image(tmp_path / "images" / name, seed=seed)
    (tmp_path / "instances.json").write_text(json.dumps(DOCUMENT))
    return card_for("coco", {s: {"images": "images", "annotations": "instances.json"} for s in ("train", "val")})


def test_images_come_in_the_order_of_their_ids_with_or_without_boxes(card: DatasetCard) -> None:
    data = CocoDetection(card, "val")
    assert data.ids == ["4", "5", "30"]
    assert [len(data[i].boxes) for i in range(3)] == [1, 0, 2]
    empty = data[1]
    assert empty.boxes.shape == (0, 4)
    assert empty.boxes.dtype == np.float32
    assert empty.labels.dtype == np.int64


def test_sparse_category_ids_become_contiguous_labels_by_ascending_id(card: DatasetCard) -> None:
    data = CocoDetection(card, "val")
    assert data.category_ids.tolist() == [1, 18, 90]
    assert data.classes == ("person", "dog", "toothbrush")
    assert data[2].labels.tolist() == [1, 0]
    assert data[0].labels.tolist() == [2]


def test_boxes_are_corners_rounded_once_and_crowds_are_flagged(card: DatasetCard) -> None:
    data = CocoDetection(card, "val")
    assert data[2].boxes.tolist() == [[1, 2, 4.5, 4], [0, 0, 8, 6]]
    assert data[0].boxes.tolist() == [np.array([0.1, 0.2, 0.1 + 0.7, 0.2 + 0.1]).astype(np.float32).tolist()]
    assert data[0].crowd.tolist() == [True]
    assert data[2].crowd.tolist() == [False, False]


def test_a_limit_keeps_the_lowest_ids_and_needs_only_their_images(tmp_path: Path, card: DatasetCard) -> None:
    (tmp_path / "images/c.png").unlink()
    data = CocoDetection(card, "val", limit=2)
    assert data.ids == ["4", "5"]
    assert data[0].labels.tolist() == [2]
    with pytest.raises(IndexError):
        data[2]
    with pytest.raises(HarnessError, match=r"instances\.json: image .*c\.png is missing"):
        CocoDetection(card, "val")


def test_an_image_of_another_size_than_the_json_says_is_refused(tmp_path: Path, card, write_image) -> None:
    write_image(tmp_path / "images/b.png", height=8, width=6)
    with pytest.raises(HarnessError, match=r"b\.png: the image has 6 x 8 pixels, but .*json says 8 x 6"):
        CocoDetection(card, "val")[1]


def change(path: str, value: object) -> dict:
    document = copy.deepcopy(DOCUMENT)
    *parents, last = path.split(".")
    place = document
    for part in parents:
        place = place[int(part) if part.isdigit() else part]
    if value is ...:
        del place[last]
    else:
        place[int(last) if last.isdigit() else last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("images", ..., r"images: a list of entries is required"),
        ("images", [], r"images: the list is empty"),
        ("categories", {}, r"categories: a list of entries is required"),
        ("annotations", ["x"], r"annotations\[0\]: 'x' is not a mapping"),
        ("images.1.id", 30, r"images\[1\]\.id: 30 appears twice"),
        ("images.1.id", "4", r"images\[1\]\.id: '4' is not a whole number"),
        ("images.1.id", True, r"images\[1\]\.id: 'True' is not a whole number"),
        ("images.1.id", -1, r"images\[1\]\.id: -1 is not an id"),
        ("images.0.file_name", ..., r"images\[0\]\.file_name: this key is required and missing"),
        ("images.0.file_name", "../../c.png", r"image file name '\.\./\.\./c\.png' does not stay inside"),
        ("images.0.height", 0, r"image 30: height and width \[0, 8\] are not a size"),
        ("images.0.width", 2**40, r"image 30: height and width"),
        ("categories.2.id", 1, r"categories\[2\]\.id: 1 appears twice"),
        ("categories.2.name", 3, r"categories\[2\]\.name: '3' is not text"),
        ("annotations.4.id", 1, r"annotations\[4\]\.id: 1 appears twice"),
        ("annotations.4.image_id", 99, r"annotations\[4\]\.image_id: 99 is not the id of an image"),
        ("annotations.4.category_id", 2, r"annotations\[4\]\.category_id: 2 is not the id of a category"),
        ("annotations.4.category_id", ..., r"annotations\[4\]\.category_id: this key is required"),
        ("annotations.4.bbox", [1, 2, 3], r"annotations\[4\]\.bbox: \[1, 2, 3\] is not"),
        ("annotations.4.bbox", [1, 2, 3, None], r"annotations\[4\]\.bbox: "),
        ("annotations.4.bbox", [1, 2, 3, "4"], r"annotations\[4\]\.bbox: "),
        ("annotations.4.iscrowd", 2, r"annotations\[4\]\.iscrowd: '2' is not 0 or 1"),
    ],
)
def test_a_broken_entry_is_refused_with_file_place_and_value(
    tmp_path: Path, card: DatasetCard, path: str, value: object, message: str
) -> None:
    (tmp_path / "instances.json").write_text(json.dumps(change(path, value)))
    with pytest.raises(HarnessError, match=r"instances\.json: " + message) as caught:
        CocoDetection(card, "val")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "NaN", '{"images": [NaN]}', "\x00", "[" * 5000])
def test_a_file_that_is_no_json_mapping_is_refused(tmp_path: Path, card: DatasetCard, text: str) -> None:
    (tmp_path / "instances.json").write_text(text)
    with pytest.raises(HarnessError, match=r"instances\.json: (not valid JSON|the top of the file)"):
        CocoDetection(card, "val")
