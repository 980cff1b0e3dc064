from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.cards import DatasetCard
from harness.data.label_map_folders import LabelMapFolders
from harness.errors import HarnessError

CLASSES = [
    {"name": "background", "id": 0},
    {"name": "cat", "id": 8},
    {"name": "dog", "id": 2},
    {"name": "void", "id": 255, "evaluated": False},
]
SPLIT = {"images": "images", "labels": "labels", "image_suffix": ".png"}


def write_labels(path: Path, height: int = 6, width: int = 8, extra: int = 0) -> np.ndarray:
    """A palette PNG, as PASCAL VOC's are."""
    labels = np.zeros((height, width), np.uint8)
    labels[1], labels[2], labels[3], labels[4] = 8, 2, 255, extra
    image = Image.fromarray(labels)
    image.putpalette([n for n in range(256) for _ in range(3)])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return labels


@pytest.fixture
def card(tmp_path: Path, card_for, write_image) -> DatasetCard:
    for name in ("b", "a", "sub/c"):
        write_image(tmp_path / f"images/{name}.png")
        write_labels(tmp_path / f"labels/{name}.png")
    return card_for("label_maps", {"train": SPLIT, "val": SPLIT}, classes=CLASSES)


def test_images_and_label_maps_are_joined_by_relative_path(card: DatasetCard) -> None:
    data = LabelMapFolders(card, "val")
    assert data.ids == ["a", "b", "sub_c"]
    assert [path.name for path in data.ground_truth_files()] == ["a.png", "b.png", "c.png"]
    assert data[-1].id == "sub_c"
    assert LabelMapFolders(card, "val", limit=2).ids == ["a", "b"]


def test_palette_indices_become_train_ids_and_void_is_ignored(card: DatasetCard) -> None:
    data = LabelMapFolders(card, "val")
    assert data.classes == ("background", "cat", "dog")
    assert data.label_ids.tolist() == [0, 8, 2]
    assert data.label_ids.dtype == np.uint8
    mask = data[0].mask
    assert mask.dtype == np.uint8
    assert mask[:, 0].tolist() == [0, 1, 2, 255, 0, 0]


def test_an_id_that_is_not_in_the_card_is_refused_naming_the_file(tmp_path: Path, card: DatasetCard) -> None:
    write_labels(tmp_path / "labels/b.png", extra=77)
    data = LabelMapFolders(card, "val")
    with pytest.raises(HarnessError, match=r"labels/b\.png: holds the id 77, which is not among the classes of card"):
        data[1]
    with pytest.raises(HarnessError, match=r"labels/b\.png: holds the id 77"):
        data.truth()[0][1]


def test_a_list_of_names_chooses_the_images_of_shared_folders(tmp_path: Path, card_for, card: DatasetCard) -> None:
    (tmp_path / "val.txt").write_text("# chosen\nsub/c\na\n")
    listed = card_for("label_maps", {s: SPLIT | {"names": "val.txt"} for s in ("train", "val")}, classes=CLASSES)
    assert LabelMapFolders(listed, "val").ids == ["a", "sub_c"]
    for content, message in (
        ("a\nx\n", r"val\.txt: image .*images/x\.png is missing"),
        ("../labels/a\n", r"val\.txt: line 1: '\.\./labels/a' does not stay inside"),
    ):
        (tmp_path / "val.txt").write_text(content)
        with pytest.raises(HarnessError, match=message):
            LabelMapFolders(listed, "val")


def test_the_endings_are_the_cards(tmp_path: Path, card_for, write_image) -> None:
    write_image(tmp_path / "images/ADE_val_1.jpg")
    write_labels(tmp_path / "labels/ADE_val_1_map.png")
    split = {"images": "images", "labels": "labels", "label_suffix": "_map.png"}
    card = card_for("label_maps", {"train": split}, classes=CLASSES)
    assert LabelMapFolders(card, "train").ids == ["ADE_val_1"]
    write_image(tmp_path / "images/ADE_val_2.png")
    with pytest.raises(HarnessError, match=r"ADE_val_2\.png: does not end in '\.jpg'; .*splits\.train\.image_suffix"):
        LabelMapFolders(card, "train")


def test_a_missing_label_map_stops_unless_the_card_leaves_such_images_out(
    tmp_path: Path, card_for, card: DatasetCard
) -> None:
    (tmp_path / "labels/b.png").unlink()
    with pytest.raises(HarnessError, match=r"images/b\.png: has no label map .*labels/b\.png; complete"):
        LabelMapFolders(card, "val")
    assert LabelMapFolders(card, "val", limit=1).ids == ["a"]
    lenient = card_for("label_maps", {"val": SPLIT, "train": SPLIT}, classes=CLASSES, missing_labels="leave_out")
    assert LabelMapFolders(lenient, "val").ids == ["a", "sub_c"]
    assert LabelMapFolders(lenient, "val", limit=2).ids == ["a", "sub_c"]
    for path in (tmp_path / "labels").rglob("*.png"):
        path.unlink()
    with pytest.raises(HarnessError, match="has no label map of any image of split val; make it"):
        LabelMapFolders(lenient, "val")


def test_a_label_map_of_another_size_is_refused_naming_both(tmp_path: Path, card: DatasetCard) -> None:
    write_labels(tmp_path / "labels/a.png", width=7)
    with pytest.raises(HarnessError, match=r"images/a\.png: has 8 x 6 pixels, .*labels/a\.png has 7 x 6"):
        LabelMapFolders(card, "val")[0]


def test_two_images_that_would_have_one_id_are_refused(tmp_path: Path, card: DatasetCard, write_image) -> None:
    write_image(tmp_path / "images/sub_c.png")
    write_labels(tmp_path / "labels/sub_c.png")
    with pytest.raises(HarnessError, match="two images have the id 'sub_c'"):
        LabelMapFolders(card, "val")


def test_a_folder_without_images_and_missing_folders_are_named(tmp_path: Path, card_for) -> None:
    card = card_for("label_maps", {"train": SPLIT}, classes=CLASSES)
    with pytest.raises(HarnessError, match=r"the image folder .*images is missing; make it"):
        LabelMapFolders(card, "train")
    (tmp_path / "images").mkdir()
    with pytest.raises(HarnessError, match=r"the label folder .*labels is missing; make it"):
        LabelMapFolders(card, "train")
    (tmp_path / "labels").mkdir()
    with pytest.raises(HarnessError, match=r"images: has no image; make it"):
        LabelMapFolders(card, "train")


def test_the_annotation_hash_follows_the_labels_and_not_the_images(tmp_path: Path, card, write_image) -> None:
    before = LabelMapFolders(card, "val").annotation_hash()
    write_image(tmp_path / "images/a.png", seed=9)
    assert LabelMapFolders(card, "val").annotation_hash() == before
    write_labels(tmp_path / "labels/a.png", extra=2)
    assert LabelMapFolders(card, "val").annotation_hash() != before


def test_the_ground_truth_is_read_map_by_map(tmp_path: Path, card: DatasetCard) -> None:
    (maps,) = LabelMapFolders(card, "val").truth()
    (tmp_path / "labels/b.png").unlink()  # nothing was read ahead
    assert len(maps) == 3
    assert maps[-1][:, 0].tolist() == [0, 8, 2, 255, 0, 0]
    assert [one.shape for one in maps[:1]] == [(6, 8)]
    with pytest.raises(HarnessError, match=r"labels/b\.png: no such image file"):
        maps[1]
