from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.cards import DatasetCard
from harness.data.segmentation import Cityscapes
from harness.errors import HarnessError

CLASSES = [
    {"name": "void", "id": 0, "evaluated": False},
    {"name": "sky", "id": 23},
    {"name": "road", "id": 7},
    {"name": "parking", "id": 9, "evaluated": False},
]


@pytest.fixture
def card(tmp_path: Path, card_for, write_image) -> DatasetCard:
    write_image(tmp_path / "images/ulm/ulm_000001_000019_leftImg8bit.png")
    write_image(tmp_path / "images/bonn/bonn_000000_000019_leftImg8bit.jpg")
    write_image(tmp_path / "images/bonn/notes.png")
    write_labels(tmp_path / "labels/ulm/ulm_000001_000019_gtFine_labelIds.png")
    write_labels(tmp_path / "labels/elsewhere/bonn_000000_000019_gtFine_labelIds.png")
    (tmp_path / "labels/ulm/ulm_000001_000019_gtFine_color.png").touch()
    return card_for(
        "cityscapes", {s: {"images": "images", "labels": "labels"} for s in ("train", "val")}, classes=CLASSES
    )


def write_labels(path: Path, height: int = 6, width: int = 8) -> None:
    labels = np.zeros((height, width), np.uint8)
    labels[1], labels[2], labels[3], labels[4] = 23, 7, 9, 200
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)


def test_frames_are_joined_by_name_across_different_folders(card: DatasetCard) -> None:
    data = Cityscapes(card, "val")
    assert data.ids == ["bonn_000000_000019", "ulm_000001_000019"]
    assert [path.name for path in data.ground_truth_files()] == [f"{i}_gtFine_labelIds.png" for i in data.ids]
    assert data[0].image.shape == (6, 8, 3)


def test_train_ids_follow_the_card_and_everything_else_is_ignored(card: DatasetCard) -> None:
    data = Cityscapes(card, "val")
    assert data.classes == ("sky", "road")
    assert data.label_ids.tolist() == [23, 7]
    assert data.label_ids.dtype == np.uint8
    mask = data[1].mask
    assert mask.dtype == np.uint8
    assert mask[:, 0].tolist() == [255, 0, 1, 255, 255, 255]
    assert data.label_ids[mask[mask != 255]].tolist() == [23] * 8 + [7] * 8


def test_a_limit_needs_only_its_own_label_maps(tmp_path: Path, card: DatasetCard) -> None:
    (tmp_path / "labels/ulm/ulm_000001_000019_gtFine_labelIds.png").unlink()
    assert Cityscapes(card, "val", limit=1).ids == ["bonn_000000_000019"]
    with pytest.raises(HarnessError, match=r"ulm_000001_000019_leftImg8bit\.png: has no label map ulm_000001"):
        Cityscapes(card, "val")


def test_a_label_map_of_another_size_is_refused_naming_both(tmp_path: Path, card: DatasetCard) -> None:
    write_labels(tmp_path / "labels/ulm/ulm_000001_000019_gtFine_labelIds.png", width=7)
    with pytest.raises(HarnessError, match=r"leftImg8bit\.png: has 8 x 6 pixels, .*labelIds\.png has 7 x 6"):
        Cityscapes(card, "val")[1]


def test_a_color_label_map_is_refused(tmp_path: Path, card: DatasetCard, write_image) -> None:
    write_image(tmp_path / "labels/ulm/ulm_000001_000019_gtFine_labelIds.png")
    with pytest.raises(HarnessError, match=r"labelIds\.png: pixel mode 'RGB' is not a label map"):
        Cityscapes(card, "val")[1]


def test_two_frames_of_one_name_are_refused(tmp_path: Path, card: DatasetCard, write_image) -> None:
    write_image(tmp_path / "images/ulm/bonn_000000_000019_leftImg8bit.png")
    with pytest.raises(HarnessError, match="has the same name as"):
        Cityscapes(card, "val")


def test_a_tree_without_frames_or_labels_is_named_with_the_mend(tmp_path: Path, card_for) -> None:
    card = card_for("cityscapes", {"train": {"images": "images", "labels": "labels"}}, classes=CLASSES)
    with pytest.raises(HarnessError, match=r"the image folder .*images is missing; make it"):
        Cityscapes(card, "train")
    (tmp_path / "images").mkdir()
    with pytest.raises(HarnessError, match=r"the label folder .*labels is missing; make it"):
        Cityscapes(card, "train")
    (tmp_path / "labels").mkdir()
    with pytest.raises(HarnessError, match=r"has no file that ends in _leftImg8bit\.png .*; make it"):
        Cityscapes(card, "train")


def test_the_annotation_hash_follows_the_labels_and_not_the_images(tmp_path: Path, card, write_image) -> None:
    before = Cityscapes(card, "val").annotation_hash()
    write_image(tmp_path / "images/ulm/ulm_000001_000019_leftImg8bit.png", seed=9)
    assert Cityscapes(card, "val").annotation_hash() == before
    write_labels(tmp_path / "labels/ulm/ulm_000001_000019_gtFine_labelIds.png", width=9)
    assert Cityscapes(card, "val").annotation_hash() != before
