"""Checkpoints: one good copy always exists, and random streams continue."""

from __future__ import annotations

import errno
import inspect
import os
import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from harness import runs
from harness.errors import HarnessError
from harness.models.backbones.weights import read_weights
from harness.training import checkpoints


def step_of(folder: Path) -> int | None:
    state = checkpoints.load(folder)
    return None if state is None else state["step"]


def test_the_newest_checkpoint_is_loaded(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoints.save(tmp_path, {"step": step})
    assert step_of(tmp_path) == 3


@pytest.mark.parametrize("kept", [1, 2, 4])
def test_as_many_checkpoints_stay_as_are_asked_for_and_the_newest_good_one_is_taken(tmp_path: Path, kept: int) -> None:
    for step in range(1, 8):
        checkpoints.save(tmp_path, {"step": step})
        checkpoints.thin(tmp_path, kept)
        assert len(list(tmp_path.iterdir())) == min(step, kept)
    found = []
    while (step := step_of(tmp_path)) is not None:
        found.append(step)
        newest = next(path for path in tmp_path.glob("checkpoint*") if torch.load(path)["step"] == step)
        newest.unlink()
    assert found == list(range(7, 7 - kept, -1))


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path: Path, damage: bytes | None) -> None:
    checkpoints.save(tmp_path, {"step": 1, "weights": torch.ones(1000)})
    checkpoints.save(tmp_path, {"step": 2, "weights": torch.ones(1000)})
    newest = tmp_path / checkpoints.NEWEST
    newest.write_bytes(newest.read_bytes()[:2000] if damage is None else damage)
    with pytest.warns(UserWarning, match=r"checkpoint\.pt: damaged, now named checkpoint\.damaged\.pt"):
        assert step_of(tmp_path) == 1


def test_a_damaged_checkpoint_never_takes_the_place_of_the_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.save(tmp_path, {"step": 1})
    checkpoints.save(tmp_path, {"step": 2})
    (tmp_path / checkpoints.NEWEST).write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="damaged"):
        checkpoints.load(tmp_path)

    class Killed(Exception):
        pass

    def killed(_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:  # while the next one is written
        patch.setattr(os, "fsync", killed)
        with pytest.raises(Killed):
            checkpoints.save(tmp_path, {"step": 3})
    assert step_of(tmp_path) == 1
    checkpoints.save(tmp_path, {"step": 3})
    assert step_of(tmp_path) == 3


@pytest.mark.parametrize("done", [1, 2, 3, 4])
def test_a_kill_after_any_renaming_leaves_the_checkpoint_that_was_written_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    for step in (1, 2):
        checkpoints.save(tmp_path, {"step": step})
    original = Path.replace
    renamed: list[Path] = []

    class Killed(Exception):
        pass

    def replace(self: Path, target: Path) -> Path:
        if len(renamed) == done:
            raise Killed
        renamed.append(target)
        return original(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with suppress(Killed):
            checkpoints.save(tmp_path, {"step": 3})
    assert len(renamed) == done
    assert step_of(tmp_path) == 3
    checkpoints.save(tmp_path, {"step": 4})
    assert step_of(tmp_path) == 4


def test_a_full_disk_is_one_sentence_and_leaves_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        checkpoints.save(tmp_path, {"step": step})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(HarnessError, match=r"cannot be written \(No space left on device\); free some space"):
            checkpoints.save(tmp_path, {"step": 3})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert step_of(tmp_path) == 2


def test_a_file_that_may_not_grow_is_one_sentence_by_the_systems_own_refusal(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, {"step": 1})
    program = """
import resource, sys, torch
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from harness import runs
from harness.errors import HarnessError
from harness.training import checkpoints
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoints.save(Path(sys.argv[1]), {"step": 2, "weights": torch.ones(1_000_000)})
except HarnessError as error:
    print(error)
"""
    found = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    (line,) = found.stdout.splitlines()
    assert "cannot be written (File too large)" in line
    assert step_of(tmp_path) == 1
    assert {path.name for path in tmp_path.iterdir()} == {checkpoints.NEWEST}


def test_without_a_checkpoint_there_is_nothing_to_resume(tmp_path: Path) -> None:
    assert checkpoints.load(tmp_path) is None
    checkpoints.save(tmp_path, {})
    checkpoints.remove(tmp_path)
    assert checkpoints.load(tmp_path) is None


def test_a_checkpoint_with_code_inside_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, ("raise SystemExit('ran')",))

    torch.save({"step": Evil()}, tmp_path / checkpoints.NEWEST)
    with pytest.warns(UserWarning, match="damaged"):
        assert checkpoints.load(tmp_path) is None


def test_every_random_stream_continues_where_it_was(tmp_path: Path) -> None:
    def draw() -> tuple[float, float, float]:
        return torch.rand(1).item(), random.random(), float(np.random.rand())  # noqa: NPY002

    draw()
    checkpoints.save(tmp_path, {"random": checkpoints.random_states()})
    expected = [draw() for _ in range(3)]
    state = checkpoints.load(tmp_path)
    assert state is not None
    checkpoints.restore_random_states(state["random"])
    assert [draw() for _ in range(3)] == expected


@pytest.mark.parametrize("error", [AssertionError, AttributeError, TypeError, IndexError])
def test_whatever_torch_raises_over_damaged_bytes_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def read(path: Path, **_: object) -> None:
        raise error("expected dict, got int") if path.exists() else FileNotFoundError

    checkpoints.save(tmp_path, {"step": 1})
    monkeypatch.setattr(torch, "load", read)
    with pytest.raises(HarnessError, match="cannot be read as weights"):
        read_weights(tmp_path / checkpoints.NEWEST)
    with pytest.warns(UserWarning, match="damaged"):
        assert checkpoints.load(tmp_path) is None
    assert (tmp_path / checkpoints.DAMAGED).exists()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("weights", "header"),
        ("half", "unexpected"),
        ("{}", "training.json: steps: this key is required and missing"),
        ("[]", r"training.json: input should be a valid mapping, got \[\]"),
        ('{"steps": "three"}', "steps: input should be a valid integer"),
        ("missing", "No such file"),
    ],
)
def test_a_finished_run_whose_files_are_damaged_says_so(tmp_path: Path, damage: str, reason: str) -> None:
    network = torch.nn.Linear(2, 2)
    save_file(network.state_dict(), tmp_path / runs.WEIGHTS)
    (tmp_path / runs.TRAINED).write_text("{}" if damage in ("weights", "missing") else damage)
    if damage == "weights":
        (tmp_path / runs.WEIGHTS).write_text("half")
    if damage == "missing":
        (tmp_path / runs.WEIGHTS).unlink()
    engine = SimpleNamespace(from_main=lambda ask: ask(), device="cpu", main=True)
    arguments: dict[str, Any] = dict.fromkeys(inspect.signature(runs._train).parameters)
    with pytest.raises(HarnessError, match=rf"cannot be read .*{reason}.*--fresh"):
        runs._train(**arguments | {"network": network, "engine": engine, "folder": tmp_path})
