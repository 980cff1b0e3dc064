"""Images in tar shards."""

from __future__ import annotations

import http.server
import io
import pickle
import shutil
import tarfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.cards import DatasetCard, load_card
from harness.data import open_split
from harness.data.shards import write_shards
from harness.data.stores import open_images
from harness.errors import HarnessError
from harness.progress import Reporter

QUIET = Reporter(quiet=True)
SUITE = ["shapes-classification", "shapes-detection", "shapes-segmentation", "shapes-vqa"]


def in_shards(card: DatasetCard, folder: Path, per_shard: int = 7) -> DatasetCard:
    """The same card with its training images in tar files beside everything else."""
    for path in card.directory.iterdir():
        (folder / path.name).symlink_to(path)
    pattern = write_shards(card, "train", folder, per_shard, QUIET)
    split = card.splits["train"].model_copy(update={"images": pattern})
    return card.model_copy(update={"root": str(folder), "splits": {**card.splits, "train": split}})


@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize("name", SUITE)
def test_shards_hold_the_same_data_set(name: str, tmp_path: Path) -> None:
    card = load_card(name)
    packed = in_shards(card, tmp_path)
    assert len(list(tmp_path.glob("train-*.tar"))) == 4  # 24 images
    plain, sharded = open_split(card, "train"), pickle.loads(pickle.dumps(open_split(packed, "train")))
    assert sharded.ids == plain.ids
    assert sharded.classes == plain.classes
    assert sharded.annotation_hash() == plain.annotation_hash()
    for index in range(len(plain)):
        for field, value in vars(plain[index]).items():
            other = getattr(sharded[index], field)
            assert np.array_equal(value, other) if isinstance(value, np.ndarray) else value == other, field


@pytest.mark.usefixtures("tiny_suite")
def test_shards_are_found_by_a_star_too_and_packing_does_not_overwrite(tmp_path: Path) -> None:
    card = load_card("shapes-classification")
    packed = in_shards(card, tmp_path)
    split = packed.splits["train"].model_copy(update={"images": "train-*.tar"})
    starred = packed.model_copy(update={"splits": {**packed.splits, "train": split}})
    assert open_split(starred, "train").ids == open_split(card, "train").ids
    with pytest.raises(HarnessError, match="holds shards of train already"):
        write_shards(card, "train", tmp_path, 7, QUIET)


@pytest.mark.usefixtures("tiny_suite")
def test_a_missing_or_truncated_shard_is_named(tmp_path: Path) -> None:
    packed = in_shards(load_card("shapes-detection"), tmp_path)
    shard = tmp_path / "train-000002.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(HarnessError, match=r"train-000002\.tar"):
        open_split(packed, "train")
    shard.unlink()
    with pytest.raises(HarnessError, match=r"train-000002\.tar is missing"):
        open_split(packed, "train")


def test_an_image_that_no_shard_holds_is_named(card_for: Any, write_image: Any, tmp_path: Path) -> None:
    write_image(tmp_path / "images/1.png")
    (tmp_path / "i.json").write_text(
        '{"images": [{"id": 1, "file_name": "1.png", "height": 6, "width": 8}, {"id": 2, "file_name": "2.png",'
        ' "height": 6, "width": 8}], "categories": [{"id": 1, "name": "a"}], "annotations": []}'
    )
    write_shards(card_for("imagefolder", {"train": {"images": "images"}}), "train", tmp_path, 5, QUIET)
    split = {"images": "train-000000.tar", "annotations": "i.json"}
    with pytest.raises(HarnessError, match=r"i\.json: image 2\.png is in none of the shards"):
        open_split(card_for("coco", {"train": split}), "train")


def test_a_damaged_image_is_named_with_its_shard(card_for: Any, write_image: Any, tmp_path: Path) -> None:
    write_image(tmp_path / "images/a/0.png")
    (tmp_path / "images/a/1.png").write_bytes(b"no image")
    card = card_for("imagefolder", {"train": {"images": "images"}})
    write_shards(card, "train", tmp_path, 5, QUIET)
    adapter = open_split(card_for("imagefolder", {"train": {"images": "train-000000.tar"}}), "train")
    with pytest.raises(HarnessError, match=r"train-000000\.tar:a/1\.png: not an image"):
        adapter[1]


def test_two_images_of_one_name_are_refused_and_other_files_left_alone(card_for: Any, tmp_path: Path) -> None:
    def shard(name: str, members: list[str]) -> None:
        with tarfile.open(tmp_path / name, "w") as archive:
            for member in members:
                info = tarfile.TarInfo(member)
                info.size = 3
                archive.addfile(info, io.BytesIO(b"abc"))

    card = card_for("imagefolder", {"train": {"images": "train-*.tar"}})
    shard("train-0.tar", ["a/1.jpg", "a/1.json", "a/._1.jpg", "../../out.jpg"])
    assert open_images(card, "train").names() == ["../../out.jpg", "a/1.jpg"]  # a name is a key here, never a path
    shard("train-1.tar", ["a/1.jpg"])
    with pytest.raises(HarnessError, match=r"two shards hold a/1\.jpg"):
        open_images(card, "train")


@pytest.mark.parametrize("pattern", ["pipe:touch hacked; cat x.tar", "file:///etc/x.tar", "ftp://host/x.tar"])
def test_a_card_cannot_run_commands_or_leave_its_root(card_for: Any, tmp_path: Path, pattern: str) -> None:
    with pytest.raises(HarnessError, match="must begin with https://"):
        open_images(card_for("imagefolder", {"train": {"images": pattern}}), "train")
    assert list(tmp_path.iterdir()) == []


def test_a_shard_that_cannot_be_fetched_is_one_sentence(
    card_for: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    address = "http://127.0.0.1:9/train-000000.tar"  # nothing listens on the discard port
    with pytest.raises(HarnessError, match=r"127\.0\.0\.1:9/train-000000\.tar: cannot be fetched .*check the address"):
        open_images(card_for("imagefolder", {"train": {"images": address}}), "train")


@pytest.mark.skipif(shutil.which("curl") is None, reason="the library fetches with curl, which is not installed")
def test_shards_at_a_url_are_fetched_once(
    card_for: Any, write_image: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    for number in range(3):
        write_image(tmp_path / f"images/a/{number}.png", seed=number)
    write_shards(card_for("imagefolder", {"train": {"images": "images"}}), "train", tmp_path / "served", 2, QUIET)
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(tmp_path / "served"))

        def log_message(self, *arguments: Any) -> None:
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/train-{{000000..000001}}.tar"
        card = card_for("imagefolder", {"train": {"images": address}})
        for _ in range(2):
            adapter = open_split(card, "train")
            assert adapter.ids == ["a/0.png", "a/1.png", "a/2.png"]
            assert [adapter[index].image.shape for index in range(3)] == [(6, 8, 3)] * 3
        assert sorted(asked) == ["/train-000000.tar", "/train-000001.tar"]
    finally:
        server.shutdown()
        server.server_close()
