"""A training image that cannot be read."""

from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from harness.data import open_split
from harness.data.config import TaskConfig
from harness.data.loading import EvaluationOrder, TaskData, TrainingOrder, loader
from harness.errors import HarnessError

CONFIG = TaskConfig(dataset="tiny", batch_size=4, image_size=(16, 16))


@pytest.fixture
def images(card_for: Any, write_image: Any, tmp_path: Path) -> Any:
    """Ten images, the fourth of which is cut off in its pixels."""
    for number in range(10):
        write_image(tmp_path / f"train/a/{number}.png", 30, 30, seed=number)
    broken = tmp_path / "train/a/3.png"
    broken.write_bytes(broken.read_bytes()[:500])
    split = {"images": "train"}
    return open_split(card_for("imagefolder", {"train": split, "val": split}), "train")


def epoch(data: TaskData, workers: int) -> list[Any]:
    return list(islice(loader(data, TrainingOrder(data, 5), workers), 2))


@pytest.mark.parametrize("workers", [0, 2])
def test_training_stops_with_the_name_of_the_file(images: Any, workers: int) -> None:
    with pytest.raises(HarnessError, match=r"train/a/3\.png: cannot be decoded") as caught:
        epoch(TaskData(images, CONFIG, True, 0), workers)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_skipping_takes_the_next_image_and_says_so_whatever_the_number_of_processes(images: Any, workers: int) -> None:
    batches = epoch(TaskData(images, CONFIG, True, 0, on_bad_image="skip"), workers)
    ids = [name for batch in batches for name in batch.ids]
    assert sorted(ids) == sorted([f"a/{n}.png" for n in range(10) if n != 3] + ["a/4.png"])
    (sentence,) = [one for batch in batches for one in batch.skipped]
    assert "train/a/3.png: cannot be decoded" in sentence


def test_images_to_be_scored_are_never_skipped(images: Any) -> None:
    data = TaskData(images, CONFIG, False, 0, on_bad_image="skip")
    with pytest.raises(HarnessError, match=r"3\.png"):
        list(loader(data, EvaluationOrder(10, 5), 0))


def test_a_data_set_without_a_readable_image_is_refused_even_then(images: Any, tmp_path: Path) -> None:
    for path in (tmp_path / "train/a").iterdir():
        path.write_bytes(b"")
    with pytest.raises(HarnessError, match="and 99 images before it"):
        epoch(TaskData(images, CONFIG, True, 0, on_bad_image="skip"), 0)


def test_the_record_of_a_run_counts_the_skipped_images(
    command: Any, tiny_cache: Path, tmp_path: Path, tiny_submission: Path
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(tiny_cache, cache)
    folder = next((cache / "shapes-v1/coco").rglob("train*"))
    damaged = sorted(path for path in folder.rglob("*.png"))[5]
    damaged.write_bytes(b"no image")
    arguments = ("submit", tiny_submission, "--set", "training.steps=12", "-q", "--json")
    stopped = command(*arguments, HARNESS_CACHE=str(cache))
    assert stopped.returncode == 2
    assert damaged.name in stopped.stderr
    assert "Traceback" not in stopped.stderr
    done = command(*arguments, "--set", "training.on_bad_image=skip", HARNESS_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    assert f"1 training images could not be read and were replaced by others: {damaged.name}" in done.stdout
