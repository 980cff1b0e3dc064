"""What can be wrong with image files, whatever the layout."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
from PIL import Image

from harness.cards import DatasetCard
from harness.data.checking import check

Found = Callable[..., list[tuple[str, str, str, str]]]


def test_a_good_data_set_has_no_findings(class_folders: DatasetCard) -> None:
    report = check([class_folders], workers=0)
    assert report.findings == ()
    assert report.clean
    assert report.cards[0].splits["train"].counts == {"images": 4, "classes": 2}


def test_everything_is_found_at_once(class_folders: DatasetCard, root: Path, found: Found) -> None:
    whole = (root / "train/ant/0.jpg").read_bytes()
    (root / "train/ant/0.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "train/ant/1.jpg").write_bytes(b"not an image")
    (root / "train/bee/0.jpg").write_bytes(b"")
    (root / "train/stray.jpg").write_bytes(whole)
    (root / "val/cow").mkdir()
    (root / "val/bee/0.jpg").unlink()
    assert found(class_folders) == [
        ("category-unknown", "val", "val/cow", "cow"),
        ("count-differs", "val", "val", "images"),
        ("image-truncated", "train", "train/ant/0.jpg", "ant/0.jpg"),
        ("image-truncated", "train", "train/bee/0.jpg", "bee/0.jpg"),
        ("image-unreadable", "train", "train/ant/1.jpg", "ant/1.jpg"),
        ("image-unlisted", "train", "train/stray.jpg", "stray.jpg"),
    ]


def test_a_jpeg_whose_end_was_never_written_is_truncated(
    class_folders: DatasetCard, root: Path, found: Found, photo: Callable[..., Path]
) -> None:
    path = photo(root / "train/ant/0.jpg", 0, width=64, height=64)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        image.load()  # the decoder does not complain
    assert found(class_folders) == [("image-truncated", "train", "train/ant/0.jpg", "ant/0.jpg")]


def test_zeros_behind_a_whole_jpeg_are_fine(class_folders: DatasetCard, root: Path, found: Found) -> None:
    path = root / "train/ant/0.jpg"
    path.write_bytes(path.read_bytes() + bytes(200))
    assert found(class_folders) == []


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "I;16", "1"])
def test_unusual_pixels_that_can_be_read_are_no_finding(
    class_folders: DatasetCard, root: Path, found: Found, mode: str
) -> None:
    pixels = np.arange(48, dtype=np.uint16 if mode == "I;16" else np.uint8).reshape(6, 8)
    image = Image.fromarray(pixels)
    ending = "jpg" if mode == "CMYK" else "png"
    (image if mode == "I;16" else image.convert(mode)).save(root / f"train/ant/odd.{ending}")
    assert [finding[0] for finding in found(class_folders)] == ["count-differs"]  # 5 images instead of 4


def test_floating_point_pixels_cannot_be_used(class_folders: DatasetCard, root: Path, found: Found) -> None:
    (root / "train/ant/0.jpg").unlink()
    Image.fromarray(np.zeros((6, 8), np.float32)).save(root / "train/ant/0.tiff")
    assert found(class_folders) == [("image-unreadable", "train", "train/ant/0.tiff", "ant/0.tiff")]


def test_file_names_that_are_not_utf_8_can_be_reported(class_folders: DatasetCard, root: Path) -> None:
    (root / "train/ant" / os.fsdecode(b"\xff.jpg")).write_bytes(b"")
    findings = check([class_folders], workers=0).to_json()["findings"]
    assert findings[-1]["file"] == "train/ant/\\xff.jpg"
    assert orjson.dumps(findings)
    assert check([class_folders], workers=0).cards[0].splits["train"].read == 0


def test_broken_exif_data_do_not_make_an_image_unreadable(
    class_folders: DatasetCard, root: Path, found: Found, photo: Callable[..., Path]
) -> None:
    photo(root / "train/ant/0.jpg", 0, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert found(class_folders) == []


def test_without_its_training_split_a_data_set_is_still_checked(
    class_folders: DatasetCard, root: Path, found: Found
) -> None:
    (root / "train").rename(root / "elsewhere")
    (root / "val/ant/0.jpg").write_bytes(b"")
    assert found(class_folders) == [
        ("count-differs", "train", "train", "images"),
        ("file-missing", "train", "train", ""),
        ("image-truncated", "val", "val/ant/0.jpg", "ant/0.jpg"),
    ]


def turned(photo: Callable[..., Path], path: Path, seed: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(path, seed, exif=exif)


def test_an_image_that_exif_turns_is_noted_where_the_card_ignores_it(
    coco: DatasetCard, root: Path, found: Found, photo: Callable[..., Path]
) -> None:
    turned(photo, root / "train/000000000001.jpg", 1)
    assert found(coco) == [("exif-ignored", "train", "train/000000000001.jpg", "1")]
    assert check([coco], workers=0).clean


def test_a_size_that_only_agrees_after_turning_is_an_error_that_names_the_setting(
    coco: DatasetCard, root: Path, photo: Callable[..., Path], edit: Callable[..., None]
) -> None:
    turned(photo, root / "train/000000000001.jpg", 1)
    edit("train.json", lambda d: d["images"][0].update(width=6, height=8))
    edit("train.json", lambda d: d["annotations"][0].update(bbox=[0, 0, 6, 8]))
    wrong, note = check([coco], workers=0).findings
    assert (wrong.code, wrong.id, note.code) == ("size-mismatch", "1", "exif-ignored")
    assert "exif_orientation: apply" in wrong.message
    applied = coco.model_copy(update={"exif_orientation": "apply"})
    assert check([applied], workers=0).findings == ()


def test_images_that_are_there_twice_are_found_by_content(class_folders: DatasetCard, root: Path, found: Found) -> None:
    same = (root / "train/ant/0.jpg").read_bytes()
    (root / "train/bee/1.jpg").write_bytes(same)
    (root / "val/bee/0.jpg").write_bytes(same)
    assert found(class_folders) == [
        ("duplicate-image", "train", "train/bee/1.jpg", "bee/1.jpg"),
        ("shared-image", "val", "val/bee/0.jpg", "bee/0.jpg"),
    ]


def test_two_processes_report_what_one_does(class_folders: DatasetCard, root: Path, photo: Callable[..., Path]) -> None:
    for number in range(150):
        photo(root / f"train/bee/more{number}.jpg", 1000 + number)
    (root / "train/bee/more7.jpg").write_bytes(b"broken")
    (root / "train/bee/more140.jpg").write_bytes((root / "train/bee/more3.jpg").read_bytes())
    alone = check([class_folders], workers=0, fresh=True)
    both = check([class_folders], workers=2, fresh=True)
    assert {finding.code for finding in alone.findings} == {"count-differs", "image-unreadable", "duplicate-image"}
    assert both == alone
    assert both.cards[0].splits["train"].read == 154
