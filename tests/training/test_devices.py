"""Several processes through the real command: what one process would have got, and no more noise than from one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from tests_runs import Ended, ended, in_this_process
from tests_support import document

from harness.cards import load_card
from harness.data import open_split, shapes
from harness.data.config import TaskConfig
from harness.data.loading import TaskData, TrainingOrder

pytestmark = pytest.mark.slow
TWO = ("-m", "harness", "submit", "a.yaml", "--devices", "2")
ONE = ("-m", "harness", "submit", "a.yaml")
TORCHRUN = ("-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", "2", "--rdzv-backend", "c10d")
TORCHRUN += ("--rdzv-endpoint", "localhost:0", "-m", "harness", "submit", "a.yaml")


def exact(**training: Any) -> dict[str, Any]:
    """No batch norm and no dropout, which make a batch more than its images, and plain gradient steps."""
    raw = document(steps=4)
    raw["model"]["backbone"] = {"name": "test_convnext"}
    raw["model"]["heads"]["segmentation"] = {"name": "upernet", "channels": 16, "dropout": 0}
    raw["tasks"][1] |= {"batch_size": 3, "crop": 0.05}  # an odd batch, and crops without a box in them
    raw["training"] |= {"optimizer": {"name": "sgd", "learning_rate": 0.02}, "gradient_clip": None} | training
    raw["evaluation"] = {"batch_size": 4}
    return raw


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training images, and 21 to be scored: with batches of 4, one process has three batches and one of one."""
    folder = tmp_path_factory.mktemp("suite")
    shapes.make(folder / shapes.default_root().name, {"train": 12, "val": 2, "test": 21})
    return folder


def start(folder: Path, cache: Path, raw: dict[str, Any], words: Sequence[str]) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    (folder / "a.yaml").write_text(yaml.safe_dump(raw))
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env=os.environ | {"HARNESS_CACHE": str(cache), "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as under a shell; signals of a test must not meet the others
    )


def finish(folder: Path, cache: Path, raw: dict[str, Any], words: Sequence[str], code: int = 0) -> tuple[str, str]:
    process = start(folder, cache, raw, words)
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    return out, err


def record(folder: Path) -> dict[str, Any]:
    (file,) = folder.glob("leaderboard/records/*/*/record.json")
    content: dict[str, Any] = json.loads(file.read_text())
    del content["cost"], content["provenance"]
    return content


def predictions(folder: Path) -> dict[str, bytes]:
    (root,) = folder.glob("runs/*/predictions")
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def assert_close(a: Ended, b: Ended) -> None:
    """As close as another order of summing 32-bit numbers brings them; averaged wrongly they differ 100 times more."""
    assert a.weights.keys() == b.weights.keys()
    for name, value in a.weights.items():
        torch.testing.assert_close(b.weights[name], value, rtol=1e-4, atol=2e-6, msg=name)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("one")
    in_this_process(folder, cache, {"tiny-4": exact()})
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("two")
    out, err = finish(folder, cache, exact(), (*TWO, "--json"))
    (folder / "out.json").write_text(out)
    (folder / "err.txt").write_text(err)
    return folder


def test_the_slices_of_the_first_steps_are_uneven_in_boxes_and_labelled_pixels(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else the next test could not tell a sum over all processes from a mean of their means."""
    monkeypatch.setenv("HARNESS_CACHE", str(cache))
    raw, boxes, pixels = exact(), [], []
    for task in raw["tasks"][1:3]:
        adapter = open_split(load_card(task["dataset"]), "train")
        data = TaskData(adapter, TaskConfig.model_validate(task), True, 0)
        for rank in range(2):
            order = iter(TrainingOrder(data, task["batch_size"], 0, rank, 2))
            slices: list[Any] = [data.batch(next(order)) for _ in range(4)]
            if task["dataset"] == "shapes-detection":
                boxes.append([[len(one) for one in part.boxes] for part in slices])
            else:
                pixels.append([int((part.masks != 255).sum()) for part in slices])
    assert boxes[0] != boxes[1]
    assert any(count == 0 for rows in boxes for part in rows for count in part)
    assert pixels[0] != pixels[1]


def test_two_processes_end_in_the_weights_of_one(one: Path, two: Path) -> None:
    assert_close(ended(one), ended(two))
    assert record(one)["fingerprint"] == record(two)["fingerprint"]
    for name, points in record(one)["curves"].items():
        assert dict(record(two)["curves"][name]) == pytest.approx(dict(points), rel=1e-4)


def test_only_one_of_two_processes_prints_and_writes(two: Path) -> None:
    (printed,) = json.loads((two / "out.json").read_text())
    assert printed["name"] == "tiny-4"
    lines = (two / "err.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "tiny-4, seed 0",
        "training",
        *(f"predicting shapes-{task}" for task in ("classification", "detection", "segmentation", "vqa")),
    ]
    (folder,) = two.glob("runs/*")
    names = {path.name for path in folder.iterdir()}
    assert names >= {"weights.safetensors", "log.jsonl", "submission.yaml", "predictions"}
    assert not any(name.startswith((".tmp", "checkpoint")) for name in names)
    steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert steps == [2, 4]


def test_two_processes_predict_the_same_bytes_with_the_same_weights_and_count_nothing_twice(
    tmp_path: Path, cache: Path, one: Path
) -> None:
    shutil.copytree(one / "runs", tmp_path / "runs")
    (folder,) = tmp_path.glob("runs/*/predictions")
    shutil.rmtree(folder)
    finish(tmp_path, cache, exact(), TWO)
    assert predictions(tmp_path) == predictions(one)
    assert len([name for name in predictions(one) if name.endswith(".png")]) == 21
    assert record(tmp_path) == record(one)
    assert record(one)["tasks"]["shapes-classification"]["images"] == 21


def test_accumulation_ends_in_the_same_weights(tmp_path: Path, cache: Path, one: Path) -> None:
    (parts,) = in_this_process(tmp_path, cache, {"tiny-4": exact(accumulation=2)}).values()
    assert_close(ended(one), parts)


def test_torchrun_starts_the_same_and_accumulation_goes_with_it(tmp_path: Path, cache: Path) -> None:
    raw = exact(accumulation=2)
    raw["tasks"] = [task | {"batch_size": 4} for task in raw["tasks"]]
    finish(tmp_path / "two", cache, raw, TORCHRUN)
    raw["training"]["accumulation"] = 1
    (alone,) = in_this_process(tmp_path / "one", cache, {"tiny-4": raw}).values()
    assert_close(alone, ended(tmp_path / "two"))


def interrupted(steps: int = 20, workers: int = 0) -> dict[str, Any]:
    """Batch norm and dropout, so that every process's random stream matters."""
    raw = document(steps=steps)
    raw["training"] |= {"workers": workers}
    raw["tasks"] = raw["tasks"][2:3]
    return raw


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    finish(folder, cache, interrupted(), TWO)
    return folder


def wait_for_steps(folder: Path, process: subprocess.Popen[str], steps: int) -> None:
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        (journal,) = list(folder.glob("runs/*/log.jsonl")) or [None]
        if journal is not None and len(journal.read_bytes().splitlines()) * 2 >= steps:
            return
        time.sleep(0.002)
    raise AssertionError(f"{steps} steps were not reached")


def test_a_run_of_two_processes_that_is_killed_ends_as_if_it_was_not(
    tmp_path: Path, cache: Path, uninterrupted: Path
) -> None:
    process = start(tmp_path, cache, interrupted(), TWO)
    wait_for_steps(tmp_path, process, 6)
    tree = psutil.Process(process.pid)
    for each in [*tree.children(recursive=True), tree]:
        each.kill()
    process.communicate()
    shutil.copytree(tmp_path, tmp_path / "alone")
    finish(tmp_path, cache, interrupted(), TWO)
    assert record(tmp_path) == record(uninterrupted)
    # With another number of processes it goes on too, and says that it is not the same.
    _, err = finish(tmp_path / "alone", cache, interrupted(), ONE)
    assert err.count("the checkpoint is of 2 processes: with 1 the run goes on from it") == 1
    assert record(tmp_path / "alone")["weights"] != record(uninterrupted)["weights"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_launcher_keeps_the_work_says_so_once_and_exits_with_130(
    tmp_path: Path, cache: Path, uninterrupted: Path, number: int
) -> None:
    process = start(tmp_path, cache, interrupted(workers=1), TWO)  # the loaders get the signal too
    wait_for_steps(tmp_path, process, 4)
    process.send_signal(number)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.count("interrupted; the work so far is kept") == 1
    assert "Traceback" not in err
    assert list(tmp_path.glob("runs/*/checkpoint.pt"))
    finish(tmp_path, cache, interrupted(), TWO)
    assert record(tmp_path) == record(uninterrupted)


def test_processes_whose_launcher_is_killed_stop_by_themselves_and_keep_the_work(tmp_path: Path, cache: Path) -> None:
    process = start(tmp_path, cache, interrupted(steps=5000), TWO)
    wait_for_steps(tmp_path, process, 4)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=200)
    assert alive == []
    assert list(tmp_path.glob("runs/*/checkpoint.pt"))


@pytest.mark.parametrize("words", [TWO, TORCHRUN], ids=["--devices", "torchrun"])
def test_an_error_of_one_process_ends_all_with_one_sentence(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, words: Sequence[str]
) -> None:
    broken = tmp_path / "suite"
    shutil.copytree(cache, broken)
    monkeypatch.setenv("HARNESS_CACHE", str(broken))
    raw = interrupted()
    task = TaskConfig.model_validate(raw["tasks"][0])
    data = TaskData(open_split(load_card(task.dataset), "train"), task, True, 0)
    ((_, index),) = next(iter(TrainingOrder(data, 2, 0, rank=1, world=2)))  # of the second process's first batch
    (image,) = broken.rglob(f"leftImg8bit/*/*/{data.adapter.ids[index]}*")
    image.write_bytes(image.read_bytes()[:100])
    _, err = finish(tmp_path / "work", broken, raw, words, code=2 if words == TWO else 1)
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert image.name in lines[0]
    if words == TWO:
        assert "Traceback" not in err
        assert [line.split(":")[0] for line in err.splitlines()] == ["tiny-4, seed 0", "error"]


def test_a_process_that_is_killed_ends_all_with_one_sentence(tmp_path: Path, cache: Path) -> None:
    process = start(tmp_path, cache, interrupted(steps=5000, workers=1), TWO)
    wait_for_steps(tmp_path, process, 4)
    workers = psutil.Process(process.pid).children()
    loaders = [each for worker in workers for each in worker.children(recursive=True)]
    workers[1].kill()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("error:")]
    assert "was ended by SIGKILL" in line
    assert loaders
    assert psutil.wait_procs([*workers, *loaders], timeout=200)[1] == []


@pytest.mark.parametrize(
    ("words", "raw", "sentence"),
    [
        (("--devices", "3"), {}, "shapes-segmentation has batch_size 2, which cannot be split into 3 (--devices) x 1"),
        ((), {"accumulation": 3}, "cannot be split into 1 (--devices) x 3 (training.accumulation) parts"),
    ],
)
def test_a_batch_that_is_smaller_than_its_parts_is_an_error_up_front(
    tmp_path: Path, cache: Path, words: Sequence[str], raw: dict[str, Any], sentence: str
) -> None:
    broken = interrupted()
    broken["training"] |= raw
    _, err = finish(tmp_path, cache, broken, (*ONE, *words), code=2)
    (line,) = err.splitlines()
    assert sentence in line
