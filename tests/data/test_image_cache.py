"""The memory-mapped image cache."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.cards import load_card
from harness.data import open_split
from harness.data.batches import Batch
from harness.data.config import TaskConfig
from harness.data.image_cache import image_cache
from harness.data.loading import EvaluationOrder, TaskData, TrainingOrder, loader
from harness.errors import HarnessError
from harness.progress import Reporter

QUIET = Reporter(quiet=True)
SUITE = ["shapes-classification", "shapes-detection", "shapes-segmentation", "shapes-vqa"]


def build(name: str, size: int, training: bool = True, workers: int = 0, **fields: Any) -> tuple[TaskData, TaskData]:
    """The same data without and with a cache."""
    adapter = open_split(load_card(name), "train", 12)
    config = TaskConfig.model_validate({"dataset": name, "batch_size": 5, "image_size": size} | fields)
    cache = image_cache(adapter, config.image_size, QUIET, workers)
    cached = config.model_copy(update={"cache": config.image_size})
    words = getattr(adapter, "question_vocabulary", ())
    return TaskData(adapter, config, training, 0, words), TaskData(adapter, cached, training, 0, words, cache=cache)


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def assert_same(a: Batch, b: Batch) -> None:
    for field, value in vars(a).items():
        assert equal(value, getattr(b, field)), field


@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize("name", SUITE)
@pytest.mark.parametrize("size", [64, 48])
def test_a_cache_of_the_image_size_changes_nothing(name: str, size: int) -> None:
    for training, fields in ((True, {"flip": 0.5, "questions": 2}), (False, {})):
        plain, cached = build(name, size, training, **fields)
        order = TrainingOrder(plain, 5) if training else EvaluationOrder(len(plain), 5)
        for a, b in islice(zip(loader(plain, order, 0), loader(cached, order, 0), strict=True), 5):
            assert_same(a, b)


@pytest.mark.usefixtures("tiny_suite")
def test_a_batch_read_at_once_is_what_its_samples_are_one_by_one() -> None:
    _, cached = build("shapes-classification", 64, flip=0.5, fraction=0.7)
    assert cached._whole_batches
    for places in islice(TrainingOrder(cached, 5), 6):
        batch: Any = cached.batch(places)
        items = [cached[place] for place in places]
        assert torch.equal(batch.images, torch.stack([item["image"] for item in items]))
        assert batch.labels.tolist() == [item["label"] for item in items]
        assert batch.ids == tuple(item["id"] for item in items)
    flips = [torch.equal(cached[(epoch, 0)]["image"], cached[(0, 0)]["image"]) for epoch in range(8)]
    assert 0 < sum(flips) < 8


@pytest.mark.usefixtures("tiny_suite")
def test_a_crop_is_taken_from_the_cached_image() -> None:
    adapter = open_split(load_card("shapes-classification"), "train", 4)
    config = TaskConfig(dataset="shapes-classification", batch_size=2, image_size=(32, 32), crop=0.3, cache=(64, 64))
    cached = TaskData(adapter, config, True, 0, cache=image_cache(adapter, (64, 64), QUIET))
    plain = TaskData(adapter, config.model_copy(update={"cache": None}), True, 0)
    batch, other = cached.batch([(0, 0), (0, 1)]), plain.batch([(0, 0), (0, 1)])
    assert batch.images.shape == (2, 3, 32, 32)
    assert torch.equal(batch.images, other.images)  # the suite's images are 64 x 64, so nothing was lost


@pytest.mark.usefixtures("tiny_suite")
def test_predictions_from_a_cache_still_know_the_original_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cached = build("shapes-segmentation", 32, training=False)
    batch: Any = cached.batch([(-1, 0)])
    assert batch.images.shape[-2:] == batch.masks.shape[-2:] == (32, 32)
    assert batch.sizes.tolist() == [[64, 64]]


def test_the_cache_is_made_anew_when_an_image_changes_and_only_then(
    card_for: Any, write_image: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    for n in range(3):
        write_image(tmp_path / f"train/a/{n}.png", seed=n)
    split = {"images": "train"}
    adapter = open_split(card_for("imagefolder", {"train": split, "val": split}), "train")
    first = image_cache(adapter, (16, 16), QUIET)
    assert image_cache(adapter, (16, 16), QUIET).images.tobytes() == first.images.tobytes()
    assert len(list((tmp_path / "cache" / "images").iterdir())) == 1
    write_image(tmp_path / "train/a/1.png", seed=9)
    os.utime(tmp_path / "train/a/1.png", ns=(1, 1))
    changed = image_cache(adapter, (16, 16), QUIET)
    assert [bool((changed.images[n] == first.images[n]).all()) for n in range(3)] == [True, False, True]
    assert image_cache(adapter, (16, 32), QUIET).images.shape == (3, 3, 16, 32)
    assert len(list((tmp_path / "cache" / "images").iterdir())) == 3


def test_a_broken_image_stops_the_cache_and_leaves_nothing_behind(
    card_for: Any, write_image: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    write_image(tmp_path / "train/a/0.png")
    (tmp_path / "train/a/1.png").write_bytes(b"no image")
    split = {"images": "train"}
    adapter = open_split(card_for("imagefolder", {"train": split, "val": split}), "train")
    with pytest.raises(HarnessError, match=r"1\.png"):
        image_cache(adapter, (16, 16), QUIET)
    assert list((tmp_path / "cache" / "images").iterdir()) == []


@pytest.mark.usefixtures("tiny_suite")
def test_loader_processes_fill_the_same_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = load_card("shapes-detection")
    adapter = open_split(card.model_copy(update={"root": str(card.directory)}), "train", 6)
    alone = image_cache(adapter, (48, 48), QUIET)
    images, boxes = alone.images.copy(), [alone.sample(n, adapter).boxes for n in range(6)]  # type: ignore[union-attr]
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    together = image_cache(adapter, (48, 48), QUIET, workers=2)
    assert (images == together.images).all()
    assert all((box == together.sample(n, adapter).boxes).all() for n, box in enumerate(boxes))  # type: ignore[union-attr]
