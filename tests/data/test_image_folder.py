import hashlib
from pathlib import Path

import numpy as np
import pytest

from harness.data.classification import ImageFolder
from harness.errors import HarnessError

SPLITS = {"train": {"images": "train"}, "val": {"images": "val"}}


def test_classes_are_the_sorted_folders_and_ids_the_relative_paths(tmp_path, card_for, write_image) -> None:
    pixels = write_image(tmp_path / "train/n02/images/b.png", seed=1)
    write_image(tmp_path / "train/n01/z.jpg")
    write_image(tmp_path / "train/n02/a.png")
    (tmp_path / "train/README.txt").touch()
    data = ImageFolder(card_for("imagefolder", SPLITS | {"val": {"images": "train"}}), "train")
    assert data.classes == ("n01", "n02")
    assert data.ids == ["n01/z.jpg", "n02/a.png", "n02/images/b.png"]
    assert data.labels.tolist() == [0, 1, 1]
    sample = data[2]
    assert (sample.id, sample.label) == ("n02/images/b.png", 1)
    assert (sample.image == pixels).all()


def test_a_class_missing_from_val_does_not_shift_the_labels(tmp_path, card_for, write_image) -> None:
    for name in ("train/a/1.png", "train/b/1.png", "train/c/1.png", "val/c/1.png"):
        write_image(tmp_path / name)
    data = ImageFolder(card_for("imagefolder", SPLITS), "val")
    assert data.classes == ("a", "b", "c")
    assert data[0].label == 2


def test_a_class_that_training_does_not_know_is_refused(tmp_path, card_for, write_image) -> None:
    write_image(tmp_path / "train/a/1.png")
    write_image(tmp_path / "val/b/1.png")
    with pytest.raises(HarnessError, match=r"val/b is a class that the training split has not"):
        ImageFolder(card_for("imagefolder", SPLITS), "val")


def test_the_annotation_hash_covers_the_whole_split_and_the_image_list_hash_the_limited_one(
    tmp_path, card_for, write_image
) -> None:
    for name in ("train/a/1.png", "train/a/2.png", "train/b/1.png"):
        write_image(tmp_path / name)
    card = card_for("imagefolder", SPLITS | {"val": {"images": "train"}})
    whole, limited = ImageFolder(card, "train"), ImageFolder(card, "train", 2)
    assert limited.ids == ["a/1.png", "a/2.png"]
    assert limited.labels.tolist() == [0, 0]
    expected = hashlib.sha256(b"a/1.png\ta\na/2.png\ta\nb/1.png\tb").hexdigest()
    assert whole.annotation_hash() == limited.annotation_hash() == expected
    assert whole.image_list_hash() != limited.image_list_hash()


def test_missing_and_empty_folders_are_named_with_the_mend(tmp_path: Path, card_for) -> None:
    card = card_for("imagefolder", SPLITS)
    with pytest.raises(HarnessError, match=r"card tiny: the image folder .*train is missing; make it"):
        ImageFolder(card, "train")
    (tmp_path / "train").mkdir()
    with pytest.raises(HarnessError, match="has no class folders; make it"):
        ImageFolder(card, "train")
    (tmp_path / "train/a").mkdir()
    with pytest.raises(HarnessError, match="no image in any class folder; make it"):
        ImageFolder(card, "train")


def test_a_broken_image_is_named_when_it_is_read(tmp_path, card_for, write_image) -> None:
    write_image(tmp_path / "train/a/1.png")
    (tmp_path / "train/a/2.jpg").write_bytes(b"\xff\xd8\xff\xe0broken")
    data = ImageFolder(card_for("imagefolder", SPLITS | {"val": {"images": "train"}}), "train")
    assert data[0].image.dtype == np.uint8
    with pytest.raises(HarnessError, match=r"train/a/2\.jpg"):
        data[1]
