"""Segmentation layouts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.cards import DatasetCard
from harness.data.checking import check

Found = Callable[..., list[tuple[str, str, str, str]]]
TRAIN = "gtFine/train/a/a_0_0_gtFine_labelIds.png"


def test_a_good_data_set_has_no_findings(cityscapes: DatasetCard) -> None:
    report = check([cityscapes], workers=0)
    assert report.findings == ()
    assert report.cards[0].splits["train"].counts == {"images": 2, "label maps": 2}
    assert report.cards[0].splits["train"].read == 4


def test_ids_sizes_and_voids_of_label_maps_are_checked(
    cityscapes: DatasetCard, root: Path, found: Found, mask: Callable[..., Path]
) -> None:
    mask(root / TRAIN, 7, 8, 255, width=7)
    mask(root / TRAIN.replace("a_0_0", "a_0_1"), 0)
    assert found(cityscapes) == [
        ("mask-size", "train", TRAIN, "a_0_0"),
        ("mask-unknown-id", "train", TRAIN, "a_0_0"),
        ("mask-empty", "train", TRAIN.replace("a_0_0", "a_0_1"), "a_0_1"),
    ]
    (message,) = [f.message for f in check([cityscapes], workers=0).findings if f.code == "mask-unknown-id"]
    assert "ids 8, 255," in message


@pytest.mark.parametrize("content", ["colours", "text", "half"])
def test_label_maps_that_cannot_be_used_are_told(
    cityscapes: DatasetCard, root: Path, found: Found, content: str, mask: Callable[..., Path]
) -> None:
    path = root / TRAIN
    if content == "colours":
        Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(path)
    elif content == "text":
        path.write_text("no image")
    else:
        mask(path, *range(7, 200), width=200, height=200)
        path.write_bytes(path.read_bytes()[:300])
    code = "image-truncated" if content == "half" else "mask-unreadable"
    assert found(cityscapes) == [(code, "train", TRAIN, "a_0_0")]


def test_frames_without_partner_and_repeated_frames_are_told(
    cityscapes: DatasetCard, root: Path, found: Found, photo: Callable[..., Path], mask: Callable[..., Path]
) -> None:
    (root / TRAIN).unlink()
    mask(root / "gtFine/val/b/b_9_9_gtFine_labelIds.png", 7)
    photo(root / "leftImg8bit/val/c/b_0_0_leftImg8bit.png", 5)
    photo(root / "leftImg8bit/val/c/preview.png", 6)
    assert found(cityscapes) == [
        ("annotation-missing", "train", "leftImg8bit/train/a/a_0_0_leftImg8bit.png", "a_0_0"),
        ("annotation-orphaned", "val", "gtFine/val/b/b_9_9_gtFine_labelIds.png", "b_9_9"),
        ("duplicate-id", "val", "leftImg8bit/val/c/b_0_0_leftImg8bit.png", "b_0_0"),
        ("image-unlisted", "val", "leftImg8bit/val/c/preview.png", "c/preview.png"),
    ]


def test_images_without_label_map_are_only_noted_where_the_card_leaves_them_out(
    cityscapes: DatasetCard, root: Path, found: Found
) -> None:
    (root / TRAIN).unlink()
    card = cityscapes.model_copy(update={"missing_labels": "leave_out"})
    assert found(card) == [("left-out", "train", "leftImg8bit/train/a/a_0_0_leftImg8bit.png", "a_0_0")]
    assert check([card], workers=0).clean


def test_lists_choose_from_folders_that_splits_share(
    root: Path, build: Callable[..., DatasetCard], found: Found, photo: Callable[..., Path], mask: Callable[..., Path]
) -> None:
    for seed, name in enumerate(("x1", "x2", "x3", "unused")):
        photo(root / f"JPEGImages/{name}.jpg", seed)
        mask(root / f"SegmentationClass/{name}.png", 0, 7)
    (root / "train.txt").write_text("x1\nx2\nx2\n../x3\ngone\n")
    (root / "val.txt").write_text("x3\n")
    mask(root / "SegmentationClass/x3.png", 7, 9)
    common = {"images": "JPEGImages", "labels": "SegmentationClass"}
    classes = [{"name": "void", "id": 0, "evaluated": False}, {"name": "road", "id": 7}]
    card = build("label_maps", {s: common | {"names": f"{s}.txt"} for s in ("train", "val")}, classes=classes)
    assert found(card) == [
        ("duplicate-id", "train", "train.txt", "x2"),
        ("entry-invalid", "train", "train.txt", "../x3"),
        ("image-missing", "train", "JPEGImages/gone.jpg", "gone"),
        ("mask-unknown-id", "val", "SegmentationClass/x3.png", "x3"),
    ]


def test_without_lists_every_image_needs_a_label_map_of_its_path(
    root: Path, build: Callable[..., DatasetCard], found: Found, photo: Callable[..., Path], mask: Callable[..., Path]
) -> None:
    for seed, name in enumerate(("train/a/1", "train/b/1", "val/1")):
        photo(root / f"images/{name}.png", seed)
        mask(root / f"labels/{name}_L.png", 7)
    (root / "labels/train/b/1_L.png").rename(root / "labels/train/b/2_L.png")
    splits = {
        s: {"images": f"images/{s}", "labels": f"labels/{s}", "image_suffix": ".png", "label_suffix": "_L.png"}
        for s in ("train", "val")
    }
    assert found(build("label_maps", splits, classes=[{"name": "road", "id": 7}])) == [
        ("annotation-missing", "train", "images/train/b/1.png", "b/1"),
        ("annotation-orphaned", "train", "labels/train/b/2_L.png", "b/2"),
    ]
