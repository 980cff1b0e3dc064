"""The layouts with lists, records and development kits: PASCAL VOC, Oxford-IIIT Pet, CIFAR, ImageNet."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from harness.cards import DatasetCard
from harness.data.checking import check

Found = Callable[..., list[tuple[str, str, str, str]]]
Build = Callable[..., DatasetCard]
Photo = Callable[..., Path]


def test_a_good_voc_has_no_findings_and_images_of_no_list_are_not_its_business(voc: DatasetCard) -> None:
    report = check([voc], workers=0)
    assert report.findings == ()
    assert report.cards[0].splits["train"].counts == {"images": 2, "boxes": 2, "categories": 1}


def test_voc_s_boxes_are_counted_from_one_with_the_last_pixel(
    voc: DatasetCard, found: Found, voc_object: Callable[..., None]
) -> None:
    voc_object("000001", xmin=1, xmax=9)  # one pixel outside: tolerated
    assert found(voc) == []
    voc_object("000001", xmin=0, xmax=5)  # likewise
    voc_object("000002", xmin=5, xmax=5)  # one pixel wide
    assert found(voc) == []
    voc_object("000001", xmin=-1, xmax=5)
    assert found(voc) == [("box-outside", "train", "Annotations/000001.xml", "000001")]
    voc_object("000001", xmin=1, xmax=10)
    voc_object("000002", xmin=5, xmax=4)
    assert found(voc) == [
        ("box-outside", "train", "Annotations/000001.xml", "000001"),
        ("box-empty", "train", "Annotations/000002.xml", "000002"),
    ]


def test_voc_s_files_names_and_xml_are_checked(
    voc: DatasetCard, root: Path, found: Found, voc_object: Callable[..., None], photo: Photo
) -> None:
    voc_object("000001", name="unicorn", xmin="left")
    (root / "Annotations/000002.xml").write_text(
        '<!DOCTYPE a [<!ENTITY b "bomb">]><annotation><size><width>&b;</width></size></annotation>'
    )
    (root / "val.txt").write_text("000003\n000004\n000005\n")
    photo(root / "JPEGImages/000003.jpg", 3, width=9)
    voc_object("000004")
    photo(root / "JPEGImages/000005.jpg", 5)
    result = found(voc)
    assert result == [
        ("annotation-missing", "val", "Annotations/000005.xml", "000005"),
        ("category-unknown", "train", "Annotations/000001.xml", "000001"),
        ("count-differs", "train", "train.txt", "objects"),
        ("count-differs", "val", "val.txt", "objects"),
        ("entry-invalid", "train", "Annotations/000001.xml", "000001"),
        ("file-unreadable", "train", "Annotations/000002.xml", "000002"),
        ("image-missing", "val", "JPEGImages/000004.jpg", "000004"),
        ("size-mismatch", "val", "JPEGImages/000003.jpg", "000003"),
    ]


def test_pets_lists_are_checked_line_by_line(root: Path, build: Build, found: Found, photo: Photo) -> None:
    for seed, name in enumerate(("Abyssinian_1", "Abyssinian_2", "yorkshire_terrier_7", "extra_1")):
        photo(root / f"images/{name}.jpg", seed)
    (root / "trainval.txt").write_text("#Image CLASS-ID\nAbyssinian_1 1 1 1\nyorkshire_terrier_7 37 2 25\n")
    (root / "test.txt").write_text("Abyssinian_2 1 1 1\n")
    splits = {"train": {"images": "images", "names": "trainval.txt"}, "test": {"images": "images", "names": "test.txt"}}
    card = build("pets", splits)
    assert found(card) == []
    (root / "test.txt").write_text(
        "Abyssinian_2 1 1 1\nAbyssinian_2 1 1 1\nBengal_9 1 1 1\nnonsense\nyorkshire_terrier_7 37 2 25\n"
    )
    assert found(card) == [
        ("duplicate-id", "test", "test.txt", "Abyssinian_2"),
        ("entry-invalid", "test", "test.txt", "Bengal_9"),
        ("entry-invalid", "test", "test.txt", "nonsense"),
        ("image-missing", "test", "images/Bengal_9.jpg", "Bengal_9"),
        ("shared-image", "test", "images/yorkshire_terrier_7.jpg", "yorkshire_terrier_7.jpg"),
    ]


def test_cifar_s_records_are_checked(root: Path, build: Build, found: Found) -> None:
    (root / "names.txt").write_text("\n".join(f"class{n}" for n in range(10)))
    records = np.random.default_rng(0).integers(0, 256, (20, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(20) % 10
    records[:10].tofile(root / "data_1.bin")
    records[10:].tofile(root / "test.bin")
    splits = {
        "train": {"images": "data_{1..2}.bin", "labels": "names.txt", "size": 10},
        "test": {"images": "test.bin", "labels": "names.txt"},
    }
    card = build("cifar", splits)
    assert found(card) == [("file-missing", "train", "data_2.bin", "")]
    records[0, 0] = 10
    records[1, 1:] = records[0, 1:]
    records[:10].tofile(root / "data_1.bin")
    (root / "data_2.bin").write_bytes(bytes(3072))
    records[12, 1:] = records[5, 1:]
    records[10:].tofile(root / "test.bin")
    assert found(card) == [
        ("category-unknown", "train", "data_1.bin", "data_1/00000"),
        ("file-unreadable", "train", "data_2.bin", ""),
        ("class-without-training", "test", "names.txt", "class0"),
        ("duplicate-image", "train", "data_1.bin", "data_1/00001"),
        ("shared-image", "test", "test.bin", "test/00002"),
    ]


@pytest.fixture
def devkit(root: Path, build: Build, photo: Photo) -> DatasetCard:
    """Two classes; three validation images with ground truth, synsets and ReaL labels."""
    wnids = ("n00000001", "n00000002")
    for seed, wnid in enumerate(wnids):
        photo(root / f"train/{wnid}/{wnid}_1.JPEG", seed)
    for number in (1, 2, 3):
        photo(root / f"val/ILSVRC2012_val_{number:08d}.JPEG", 10 + number)
    (root / "truth.txt").write_text("2\n1\n2\n")
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")]
    rows = [(1, wnids[0], 0), (2, wnids[1], 0), (3, "n00000003", 2)]
    savemat(root / "meta.mat", {"synsets": np.array(rows, dtype=kind).reshape(-1, 1)})
    (root / "real.json").write_text(json.dumps([[1], [0], []]))
    flat = {"images": "val", "labels": "truth.txt", "synsets": "meta.mat", "real": "real.json"}
    return build("imagenet_devkit", {"train": {"images": "train"}, "val": flat})


def test_a_good_development_kit_has_no_findings(devkit: DatasetCard) -> None:
    report = check([devkit], workers=0)
    assert report.findings == ()
    assert report.cards[0].splits["val"].counts == {"images": 3, "labels": 3}


def test_the_development_kit_s_files_are_compared_with_the_images(
    devkit: DatasetCard, root: Path, found: Found, photo: Photo
) -> None:
    (root / "truth.txt").write_text("2\n3\n2\n1\n")
    (root / "real.json").write_text(json.dumps([[1], [2]]))
    (root / "train/n00000001/n00000001_1.JPEG").unlink()
    (root / "train/n00000001").rmdir()
    photo(root / "train/n00000003/x.JPEG", 4)
    photo(root / "val/other.JPEG", 5)
    assert found(devkit) == [
        ("count-differs", "val", "real.json", ""),
        ("entry-invalid", "val", "real.json", "1"),
        ("entry-invalid", "val", "truth.txt", "ILSVRC2012_val_00000002.JPEG"),
        ("image-missing", "val", "val/ILSVRC2012_val_00000004.JPEG", "ILSVRC2012_val_00000004.JPEG"),
        ("image-unlisted", "val", "val/other.JPEG", "other.JPEG"),
    ]
    (root / "meta.mat").write_bytes(b"no matrix")
    assert ("file-unreadable", "val", "meta.mat", "") in found(devkit)
