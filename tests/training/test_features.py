"""Features of a frozen backbone on disk: when, under which key, how many bytes, and the same bits as without."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests_runs import in_this_process
from tests_support import document

from harness.cards import load_card
from harness.data import feature_rows, open_split
from harness.data.batches import ClassificationBatch
from harness.data.config import TaskConfig
from harness.data.feature_rows import FeatureRows, PartWriter
from harness.data.loading import EvaluationOrder, TaskData, TrainingOrder, loader
from harness.models.config import ModelConfig
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.progress import Reporter
from harness.training import features
from harness.training.engine import Engine
from harness.training.features import remember

CLASSIFICATION = "shapes-classification"
SUITE = [CLASSIFICATION, "shapes-detection", "shapes-segmentation", "shapes-vqa"]


class Heard(Reporter):
    """A reporter whose sentences are kept."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def cache(tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own with the tiny suite."""
    own = tmp_path / "cache"
    shutil.copytree(tiny_cache / "shapes-v1", own / "shapes-v1")
    monkeypatch.setenv("HARNESS_CACHE", str(own))
    return own


def data(name: str = CLASSIFICATION, training: bool = True, **config: Any) -> TaskData:
    adapter = open_split(load_card(name), "train")
    task = TaskConfig.model_validate({"dataset": name, "batch_size": 5, "image_size": 64} | config)
    return TaskData(adapter, task, training, 0, getattr(adapter, "question_vocabulary", ()))


def network(seed: int = 0, head_smoothing: float = 0.0, **changes: Any) -> MultiTaskNetwork:
    model = document(0)["model"]
    model["backbone"] |= {"frozen": "all"} | changes.pop("backbone", {})
    model["placeholders"] |= changes.pop("placeholders", {})
    model["heads"]["classification"] = {"label_smoothing": head_smoothing}
    torch.manual_seed(seed)
    specs = {}
    for name in SUITE:
        adapter = open_split(load_card(name), "train")
        specs[name] = TaskSpec(adapter.task, len(adapter.classes), len(getattr(adapter, "question_vocabulary", ())))
    return MultiTaskNetwork(ModelConfig.model_validate(model), specs).to(memory_format=torch.channels_last)


def remembered(net: MultiTaskNetwork, split: TaskData, mode: Any = "disk", **options: Any) -> TaskData:
    return remember(net, Engine("32"), split, mode, options.pop("reporter", Reporter(quiet=True)), **options)


def stores(cache: Path) -> set[str]:
    folder = cache / "features"
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


@pytest.mark.parametrize(
    ("name", "workers"), [*((name, 0) for name in SUITE), pytest.param("shapes-vqa", 2, marks=pytest.mark.slow)]
)
def test_batches_without_pixels_hold_all_else_and_their_features_are_those_of_the_pixels(
    cache: Path, name: str, workers: int
) -> None:
    net = network()
    backbone: Any = net.shared.trunk.backbone  # type: ignore[union-attr]
    plain = data(name, questions=2, fraction=0.6)
    blind = remembered(net, plain, workers=workers)
    assert blind is not plain
    order = iter(TrainingOrder(plain, 5))
    places = [next(order) for _ in range(4)]
    for a, b in zip(loader(plain, places, 0), loader(blind, places, workers), strict=True):
        assert b.images.shape == a.images.shape
        assert b.images.untyped_storage().nbytes() < 100
        for field, value in vars(a).items():
            other = getattr(b, field)
            if field in ("images", "remembered"):
                continue
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, other), field
                assert value.dtype == other.dtype
            elif isinstance(value, tuple) and value and isinstance(value[0], torch.Tensor):
                assert all(map(torch.equal, value, other)), field
            else:
                assert value == other, field
        mapped = 0 if name == CLASSIFICATION else 3
        computed, kept = (backbone(one.images, None, None, mapped, one.remembered) for one in (a, b))
        assert torch.equal(computed.pooled, kept.pooled)
        assert computed.maps.keys() == kept.maps.keys()
        for stride, level in computed.maps.items():
            assert torch.equal(level, kept.maps[stride])
            assert level.stride() == kept.maps[stride].stride()


def test_a_batch_without_pixels_that_has_lost_its_features_is_refused(cache: Path) -> None:
    batch = remembered(network(), data()).batch([(0, 1), (0, 2)])
    assert batch.to(torch.device("cpu")).images.shape == (2, 3, 64, 64)
    with pytest.raises(ValueError, match="no pixels"):
        replace(batch, remembered=None)


def test_tasks_whose_features_lie_in_several_stores_go_through_the_network_together(cache: Path) -> None:
    net = network()
    splits = {name: data(name) for name in SUITE}
    plain = {name: split.batch([(0, 1), (0, 3)]) for name, split in splits.items()}
    kept = {name: remembered(net, split).batch([(0, 1), (0, 3)]) for name, split in splits.items()}
    net.eval()
    for name in SUITE:
        assert net.predict(name, kept[name]) is not None
    torch.manual_seed(5)
    expected = net(plain)
    torch.manual_seed(5)
    found = net(kept)
    assert {name: loss.item() for name, loss in found.items()} == {n: loss.item() for n, loss in expected.items()}


def test_the_key_is_everything_that_features_depend_on_and_nothing_else(cache: Path) -> None:
    def count(net: MultiTaskNetwork, split: TaskData) -> int:
        remembered(net, split)
        return len(stores(cache))

    assert count(network(), data()) == 1
    # The same again: another head, another task's reading, other batches, evaluation of the same split.
    assert count(network(head_smoothing=0.3), data(batch_size=3, weight=1.0)) == 1
    assert count(network(), data(training=False, flip=0.5)) == 1
    assert count(network(placeholders={"count": 4, "placement": "output"}), data()) == 1
    # Other features, one by one: weights, image size, recipe, images, what is kept, the data set.
    assert count(network(seed=1), data()) == 2
    assert count(network(), data(image_size=32)) == 3
    assert count(network(), data(resize="crop")) == 4
    assert count(network(), data(fraction=0.5)) == 5
    assert count(network(), data("shapes-detection")) == 6
    (cache / "shapes-v1").rename(cache / "moved")
    (cache / "moved").rename(cache / "shapes-v1")
    image = next((cache / "shapes-v1").rglob("train/*/*.png"))
    os.utime(image, ns=(1, 1))
    assert count(network(), data()) == 7
    torch.set_float32_matmul_precision("high")
    try:
        assert count(network(), data()) == 8
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    ("model", "task", "why"),
    [
        ({"backbone": {"frozen": "none"}}, {}, "the weights move"),
        ({"backbone": {"frozen": 1}}, {}, "some weights move"),
        ({"placeholders": {"count": 4, "stages": 1}}, {}, "tokens come into the body"),
        ({}, {"flip": 0.5}, "images are flipped"),
        ({}, {"crop": 0.5}, "images are cropped"),
        ({}, {"augment": "color"}, "colours change"),
    ],
)
def test_nothing_is_kept_on_disk_where_features_or_images_change(
    cache: Path, model: dict[str, Any], task: dict[str, Any], why: str
) -> None:
    split = data(**task)
    assert remembered(network(**model), split) is split, why
    assert not stores(cache)


def test_nothing_is_kept_on_disk_where_that_is_not_wanted_or_a_run_reads_only_part_of_the_images(cache: Path) -> None:
    split = data()
    for options in ({"mode": "memory"}, {"mode": "none"}, {"visits": len(split) - 1}):
        assert remembered(network(), split, **options) is split
    assert not stores(cache)
    assert remembered(network(), split, visits=len(split)) is not split
    assert remembered(network(), split, visits=1) is not split  # they are there already


def test_features_that_do_not_fit_are_not_kept_and_that_is_said(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard, split = Heard(), data()
    monkeypatch.setattr(features, "LIMIT", 100)
    assert remembered(network(), split, reporter=heard) is split
    assert len(heard.said) == 1
    assert "features of shapes-classification are not kept on disk" in heard.said[0]
    assert "GB do not fit" in heard.said[0]


def test_a_cache_folder_that_cannot_be_written_is_no_reason_to_stop(cache: Path) -> None:
    heard, split = Heard(), data()
    (cache / "features").write_text("in the way")
    assert remembered(network(), split, reporter=heard) is split
    assert "are not kept on disk" in heard.said[0]


def test_features_not_used_for_long_make_room_and_those_in_use_do_not(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered(network(), data())
    (first,) = stores(cache)
    remembered(network(seed=1), data())
    (second,) = stores(cache) - {first}
    size = features._size(cache / "features" / first)
    monkeypatch.setattr(features, "LIMIT", int(2.5 * size))
    split = data()
    assert remembered(network(seed=2), split) is split  # both were used just now
    for name, age in ((first, 2), (second, 3)):
        os.utime(cache / "features" / name, times=(0, time.time() - age * 24 * 3600))
    remembered(network(), data())  # used again
    assert remembered(network(seed=2), split) is not split
    assert first in stores(cache)
    assert second not in stores(cache)
    assert len(stores(cache)) == 2


def test_a_killed_process_leaves_whole_parts_and_the_next_one_makes_the_others(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_rows, "PART", 16)
    net, split = network(), data()
    whole = remembered(net, split)
    (store,) = (cache / "features").iterdir()
    first, second = sorted((store / "parts").iterdir())
    expected = {path.name: path.read_bytes() for path in second.iterdir()}
    made = first.stat().st_mtime_ns
    second.rename(second.with_name(".tmp-killed"))
    again = remembered(net, split)
    assert {path.name: path.read_bytes() for path in second.iterdir()} == expected
    assert first.stat().st_mtime_ns == made
    assert sorted(path.name for path in (store / "parts").iterdir()) == [first.name, second.name]
    places = [(0, 3), (0, 17), (0, 15), (0, 23)]
    a, b = (net.shared.trunk.backbone.stores.outputs(one.batch(places).remembered, 0) for one in (whole, again))  # type: ignore[union-attr]
    assert torch.equal(a["pooled"], b["pooled"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_features_of_every_precision_are_read_as_they_were_written(tmp_path: Path, dtype: torch.dtype) -> None:
    pooled, maps = torch.randn(5, 7).to(dtype), torch.randn(5, 1, 3, 4).to(dtype)
    batch = ClassificationBatch(
        tuple("abcde"), torch.zeros(5, 3, 1, 1), torch.arange(10).view(5, 2), labels=torch.arange(5)
    )
    (tmp_path / "000000").mkdir()
    with PartWriter(tmp_path / "000000", "classification", 5) as writer:
        writer.add(batch, {"pooled": pooled, "blocks.0": maps})
    rows = FeatureRows(tmp_path)
    found = rows.outputs([4, 0, 4], 2)
    assert torch.equal(found["pooled"], pooled[[4, 0, 4]])
    assert torch.equal(found["blocks.0"], maps[[4, 0]])
    assert found["pooled"].dtype == dtype
    assert list(rows.outputs([1], 0)) == ["pooled"]
    assert rows.item(3) == {"size": (6, 7), "label": 3}


def test_evaluation_reads_every_image_once_from_its_own_store(cache: Path) -> None:
    net = network().eval()
    split = data(training=False)
    blind = remembered(net, split)
    for a, b in zip(loader(split, EvaluationOrder(24, 7), 0), loader(blind, EvaluationOrder(24, 7), 0), strict=True):
        assert torch.equal(net.predict(CLASSIFICATION, a), net.predict(CLASSIFICATION, b))


def content(**backbone: str) -> dict[str, Any]:
    found = document(0, steps=12)
    found["model"]["backbone"] |= {"frozen": "all", **backbone}
    for task in found["tasks"]:
        task |= {"flip": 0.0, "crop": 1.0}
    return found


def submit(folder: Path, cache: Path) -> subprocess.Popen[bytes]:
    folder.mkdir()
    (folder / "a.yaml").write_text(yaml.safe_dump(content()))
    return subprocess.Popen(
        [sys.executable, "-m", "harness", "submit", "a.yaml", "-q"],
        cwd=folder,
        env=os.environ | {"HARNESS_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )


def outcome(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    (record,) = folder.glob("leaderboard/records/*/*/record.json")
    found = json.loads(record.read_text())
    return {key: found[key] for key in ("fingerprint", "weights", "curves")}, found["tasks"]


@pytest.mark.slow
def test_runs_without_with_an_empty_and_with_a_full_cache_end_in_the_same_bits(cache: Path, tmp_path: Path) -> None:
    def run(name: str, **backbone: str) -> Any:
        in_this_process(tmp_path / name, cache, {"tiny-0": content(**backbone)})
        return outcome(tmp_path / name)

    expected = run("none", feature_cache="none")
    assert run("memory", feature_cache="memory") == expected
    assert not stores(cache)
    assert run("cold") == expected
    # Training splits are 24 images, of which 12 steps of 2 read each once.
    assert len(stores(cache)) == 8
    assert break_images() > 60
    process = submit(tmp_path / "warm", cache)  # another process: nothing is left of the images but the features
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr.decode()
    assert outcome(tmp_path / "warm") == expected


def break_images() -> int:
    """Whoever decodes an image fails, but for those that costs are counted with: the first of each evaluation split."""
    broken: set[Path] = set()
    for name in SUITE:
        card = load_card(name)
        for split in ("train", card.evaluation_split):
            images = sorted(path for path in card.path(split, "images").rglob("*") if path.is_file())
            broken |= set(images[split != "train" :])
    for image in broken:
        status = image.stat()
        image.write_bytes(b"x" * status.st_size)
        os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    return len(broken)


@pytest.mark.slow
def test_two_processes_that_make_the_same_features_at_once_do_not_harm_each_other(cache: Path, tmp_path: Path) -> None:
    processes = [submit(tmp_path / str(number), cache) for number in range(2)]
    for process in processes:
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr.decode()
    assert outcome(tmp_path / "0") == outcome(tmp_path / "1")
    assert len(stores(cache)) == 8
