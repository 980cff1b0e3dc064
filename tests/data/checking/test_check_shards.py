"""Images in tar shards, and archives beside the data."""

import hashlib
import tarfile
from collections.abc import Callable
from pathlib import Path

from harness.cards import DatasetCard
from harness.data.checking import check

Found = Callable[..., list[tuple[str, str, str, str]]]


def pack(shard: Path, folder: Path, names: list[str]) -> None:
    with tarfile.open(shard, "w") as archive:
        for name in names:
            archive.add(folder / name, arcname=name)


def sharded(card: DatasetCard, **images: str) -> DatasetCard:
    splits = {name: split.model_copy(update={"images": images[name]}) for name, split in card.splits.items()}
    return card.model_copy(update={"splits": splits})


def test_images_in_shards_are_checked_like_files(class_folders: DatasetCard, root: Path, found: Found) -> None:
    (root / "train/ant/1.jpg").write_bytes(b"broken")
    (root / "val/bee/0.jpg").write_bytes((root / "train/ant/0.jpg").read_bytes())
    pack(root / "train-0000.tar", root / "train", ["ant/0.jpg", "ant/1.jpg"])
    pack(root / "train-0001.tar", root / "train", ["bee/0.jpg", "bee/1.jpg"])
    pack(root / "val-0.tar", root / "val", ["ant/0.jpg", "bee/0.jpg"])
    card = sharded(class_folders, train="train-{0000..0001}.tar", val="val-*.tar")
    assert found(card) == [
        ("image-unreadable", "train", "train-0000.tar:ant/1.jpg", "ant/1.jpg"),
        ("shared-image", "val", "val-0.tar:bee/0.jpg", "bee/0.jpg"),
    ]
    assert check([card], workers=0).cards[0].splits["train"].reused == 4


def test_missing_cut_and_repeating_shards_are_told(class_folders: DatasetCard, root: Path, found: Found) -> None:
    pack(root / "train-0.tar", root / "train", ["ant/0.jpg", "ant/1.jpg", "bee/0.jpg", "bee/1.jpg"])
    pack(root / "val-0.tar", root / "val", ["ant/0.jpg", "bee/0.jpg"])
    pack(root / "val-1.tar", root / "val", ["ant/0.jpg"])
    data = (root / "train-0.tar").read_bytes()
    (root / "train-0.tar").write_bytes(data[: len(data) // 4])
    card = sharded(class_folders, train="train-{0..1}.tar", val="val-{0..1}.tar")
    result = found(card)
    assert ("file-missing", "train", "train-1.tar", "") in result
    assert ("file-unreadable", "train", "train-0.tar", "") in result
    assert ("duplicate-id", "val", "val-1.tar:ant/0.jpg", "ant/0.jpg") in result


def test_coco_s_boxes_are_checked_against_images_in_shards(
    coco: DatasetCard, root: Path, found: Found, edit: Callable[..., None]
) -> None:
    for split in ("train", "val"):
        pack(root / f"{split}.tar", root / split, sorted(path.name for path in (root / split).iterdir()))
    card = sharded(coco, train="train.tar", val="val.tar")
    assert found(card) == []
    edit("train.json", lambda d: d["images"][0].update(height=7))
    edit("train.json", lambda d: d["images"][1].update(file_name="gone.jpg"))
    assert found(card) == [
        ("image-missing", "train", "gone.jpg", "2"),
        ("size-mismatch", "train", "train.tar:000000000001.jpg", "1"),
        ("image-unlisted", "train", "train.tar:000000000002.jpg", "000000000002.jpg"),
    ]


def test_archives_that_are_there_are_compared_with_what_their_publisher_states(
    class_folders: DatasetCard, root: Path
) -> None:
    (root / "good.zip").write_bytes(b"good")
    (root / "bad.zip").write_bytes(b"evil")
    (root / "short.zip").write_bytes(b"goo")
    good = hashlib.md5(b"good").hexdigest()
    names = ("good.zip", "bad.zip", "short.zip", "absent.zip")
    raw = class_folders.model_dump() | {"archives": [{"file": n, "md5": good, "bytes": 4} for n in names]}
    report = check([DatasetCard.model_validate(raw)], workers=0)
    assert [(f.code, f.split, f.file, f.id) for f in report.findings] == [
        ("archive-checksum", "", "bad.zip", "bad.zip"),
        ("archive-checksum", "", "short.zip", "short.zip"),
    ]
    assert report.cards[0].archives == ("good.zip", "bad.zip", "short.zip")
    (root / "bad.zip").write_bytes(b"good")
    (root / "short.zip").write_bytes(b"good")
    assert check([DatasetCard.model_validate(raw)], workers=0).findings == ()
