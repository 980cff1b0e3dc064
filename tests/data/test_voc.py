from pathlib import Path

import numpy as np
import pytest

from harness.cards import DatasetCard
from harness.data.voc import PascalVoc
from harness.errors import HarnessError

CLASSES = [{"name": "cat", "id": 1}, {"name": "dog", "id": 2}]
BOX = "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>"
OBJECT = "<object><name>{}</name><difficult>{}</difficult><bndbox>" + BOX + "</bndbox></object>"
# 1-based and inclusive: columns 3 to 6 and rows 2 to 4 of an image of 8 x 6 pixels
DOG = OBJECT.format("dog", 0, 3, 2, 6, 4)
CAT = OBJECT.format("cat", 1, 1, 1, 8, 6)
SPLIT = {"images": "JPEGImages", "annotations": "Annotations", "names": "ImageSets/Main/val.txt"}


def write_xml(root: Path, name: str, objects: str = "", size: str = "<width>8</width><height>6</height>") -> Path:
    path = root / "Annotations" / f"{name}.xml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"<annotation><filename>{name}.jpg</filename><size>{size}</size>{objects}</annotation>")
    return path


@pytest.fixture
def card(tmp_path: Path, card_for, write_image) -> DatasetCard:
    for name in ("2007_000027", "000005"):
        write_image(tmp_path / f"JPEGImages/{name}.jpg")
    write_xml(tmp_path, "2007_000027", DOG + CAT)
    write_xml(tmp_path, "000005")
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/val.txt").write_text("2007_000027\n000005\n")
    return card_for("voc", {"train": SPLIT, "val": SPLIT}, classes=CLASSES)


def test_an_image_id_is_its_names_digits_and_images_are_in_the_order_of_ids(card: DatasetCard) -> None:
    data = PascalVoc(card, "val")
    assert data.ids == ["5", "2007000027"]
    assert data.image_ids.tolist() == [5, 2007000027]
    assert data.classes == ("cat", "dog")
    assert data.category_ids.tolist() == [1, 2]
    assert PascalVoc(card, "val", limit=1).ids == ["5"]


def test_boxes_counted_from_one_become_boxes_counted_from_zero(card: DatasetCard) -> None:
    sample = PascalVoc(card, "val")[1]
    # columns 3..6 are pixels 2, 3, 4, 5: from 2 to 6, four wide
    assert sample.boxes.tolist() == [[2, 1, 6, 4], [0, 0, 8, 6]]
    assert sample.boxes.dtype == np.float32
    assert sample.labels.tolist() == [1, 0]
    assert sample.image.shape == (6, 8, 3)


def test_a_difficult_object_is_a_crowd_region(card: DatasetCard) -> None:
    assert PascalVoc(card, "val")[-1].crowd.tolist() == [False, True]


def test_an_image_without_objects_counts(card: DatasetCard) -> None:
    sample = PascalVoc(card, "val")[0]
    assert sample.id == "5"
    assert sample.boxes.shape == (0, 4)


def test_the_ground_truth_is_a_coco_document_of_the_chosen_images(card: DatasetCard) -> None:
    (document,) = PascalVoc(card, "val").truth()
    assert document["images"][1] == {"id": 2007000027, "file_name": "2007_000027.jpg", "width": 8, "height": 6}
    assert document["annotations"] == [
        {"id": 1, "image_id": 2007000027, "category_id": 2, "bbox": [2, 1, 4, 3], "area": 12, "iscrowd": 0},
        {"id": 2, "image_id": 2007000027, "category_id": 1, "bbox": [0, 0, 8, 6], "area": 48, "iscrowd": 1},
    ]
    assert document["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    (document,) = PascalVoc(card, "val", limit=1).truth()
    assert ([image["id"] for image in document["images"]], document["annotations"]) == ([5], [])


def test_parts_of_a_person_are_no_objects_and_a_missing_difficult_flag_means_no(
    tmp_path: Path, card: DatasetCard
) -> None:
    part = "<part><name>head</name><bndbox><xmin>9</xmin></bndbox></part>"
    write_xml(tmp_path, "000005", DOG.replace("<difficult>0</difficult>", "").replace("</object>", part + "</object>"))
    sample = PascalVoc(card, "val")[0]
    assert sample.boxes.tolist() == [[2, 1, 6, 4]]
    assert sample.crowd.tolist() == [False]


def test_fractions_of_a_pixel_are_kept_and_a_box_of_one_pixel_has_an_area(tmp_path: Path, card: DatasetCard) -> None:
    box = "<bndbox><xmin>2.5</xmin><ymin>3</ymin><xmax>2.5</xmax><ymax>3</ymax></bndbox>"
    write_xml(tmp_path, "000005", f"<object><name>cat</name>{box}</object>")
    assert PascalVoc(card, "val")[0].boxes.tolist() == [[1.5, 2, 2.5, 3]]


def test_the_annotation_hash_covers_every_xml_file_in_order_and_no_image(tmp_path: Path, card, write_image) -> None:
    data = PascalVoc(card, "val", limit=1)
    assert [path.name for path in data.ground_truth_files()] == ["000005.xml", "2007_000027.xml"]
    before = data.annotation_hash()
    write_image(tmp_path / "JPEGImages/000005.jpg", seed=9)
    assert PascalVoc(card, "val").annotation_hash() == before
    write_xml(tmp_path, "2007_000027", DOG)
    assert PascalVoc(card, "val", limit=1).annotation_hash() != before


def test_an_image_of_another_size_than_its_xml_says_is_refused_naming_both(tmp_path: Path, card, write_image) -> None:
    write_image(tmp_path / "JPEGImages/000005.jpg", width=9)
    with pytest.raises(HarnessError, match=r"000005\.jpg: the image has 9 x 6 pixels, but .*000005\.xml says 8 x 6"):
        PascalVoc(card, "val")[0]


BOMB = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><annotation>&b;</annotation>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation>&x;</annotation>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<annotation><size>", r"is not plain XML \(ParseError: no element found"),
        ("\0\1", "is not plain XML"),
        (BOMB, r"is not plain XML \(DTDForbidden"),
        (OUTSIDE, r"is not plain XML \(DTDForbidden"),
        ('<?xml version="1.0" encoding="klingon"?><a/>', "is not plain XML"),
        ("<annotation/>", r"size: width: this element is required and missing"),
        ("<annotation><size><width>0</width><height>6</height></size></annotation>", "size: 0 x 6 is not an image's"),
        ("<annotation><size><width>x</width></size></annotation>", r"size: width: 'x' is not a number of pixels"),
    ],
)
def test_a_broken_or_dangerous_xml_file_is_refused(tmp_path: Path, card, content: str, message: str) -> None:
    (tmp_path / "Annotations/000005.xml").write_text(content)
    with pytest.raises(HarnessError, match=r"Annotations/000005\.xml: .*" + message) as caught:
        PascalVoc(card, "val")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dog", "dgo", r"object 1: name: 'dgo' is not a class of the card; did you mean 'dog'\?"),
        ("<difficult>0", "<difficult>2", r"object 1: difficult: '2' is not 0 or 1"),
        ("<xmax>6", "<xmax>2", r"object 1: bndbox: 3, 2 to 2, 4 has a negative side"),
        ("<xmax>6", "<xmax>nan", r"object 1: bndbox: xmax: 'nan' is not a number of pixels"),
        ("<ymin>2</ymin>", "", r"object 1: bndbox: ymin: this element is required and missing"),
        ("bndbox", "box", r"object 1: bndbox: xmin: this element is required and missing"),
    ],
)
def test_a_wrong_object_is_refused_with_its_place(tmp_path: Path, card, old: str, new: str, message: str) -> None:
    write_xml(tmp_path, "000005", DOG.replace(old, new))
    with pytest.raises(HarnessError, match=r"000005\.xml: " + message):
        PascalVoc(card, "val")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("000005\n000006\n", r"val\.txt: image .*000006\.jpg is missing"),
        ("../000005\n", r"val\.txt: line 1: '\.\./000005' does not stay inside the image folder"),
        ("/etc/hostname\n", r"line 1: '/etc/hostname' does not stay inside"),
        ("000005\n000005\n", r"line 2: '000005' is in line 1 already"),
        ("000005 -1\n", r"line 1: '000005 -1' has 2 words where 1 are required"),
        ("cat_a\n", r"val\.txt: image 'cat_a' is not named by digits"),
        ("5\n000005\n", r"images '5' and '000005' both have id 5"),
        ("\n", "lists no image"),
        ("\xff", r"is not UTF-8 text \(byte 0\)"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(tmp_path: Path, card, names: str, message: str) -> None:
    (tmp_path / "ImageSets/Main/val.txt").write_bytes(names.encode("latin-1"))
    with pytest.raises(HarnessError, match=message):
        PascalVoc(card, "val")


def test_missing_files_are_named(tmp_path: Path, card: DatasetCard) -> None:
    (tmp_path / "Annotations/000005.xml").unlink()
    with pytest.raises(HarnessError, match=r"Annotations/000005\.xml: cannot be read"):
        PascalVoc(card, "val")
    (tmp_path / "ImageSets/Main/val.txt").unlink()
    with pytest.raises(HarnessError, match=r"the list of images .*val\.txt is missing; make it"):
        PascalVoc(card, "val")


def test_a_file_that_is_too_large_is_refused_before_it_is_parsed(tmp_path: Path, card: DatasetCard) -> None:
    write_xml(tmp_path, "000005", " " * (4 << 20))
    with pytest.raises(HarnessError, match=r"000005\.xml: is larger than 4 MiB"):
        PascalVoc(card, "val")


def test_the_cards_classes_are_numbered_from_one(tmp_path: Path, card: DatasetCard, card_for) -> None:
    other = card_for("voc", {"train": SPLIT, "val": SPLIT}, classes=[{"name": "cat", "id": 0}])
    with pytest.raises(HarnessError, match="classes: ids must be 1 to 1 in this order"):
        PascalVoc(other, "val")
