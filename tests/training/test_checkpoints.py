"""Checkpoints: one good copy always exists, and random streams continue."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.training import checkpoints


def test_the_newest_checkpoint_is_loaded(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoints.save(tmp_path, {"step": step})
    state = checkpoints.load(tmp_path)
    assert state is not None
    assert state["step"] == 3


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path: Path, damage: bytes | None) -> None:
    checkpoints.save(tmp_path, {"step": 1, "weights": torch.ones(1000)})
    checkpoints.save(tmp_path, {"step": 2, "weights": torch.ones(1000)})
    newest = tmp_path / checkpoints.NEWEST
    newest.write_bytes(newest.read_bytes()[:2000] if damage is None else damage)
    state = checkpoints.load(tmp_path)
    assert state is not None
    assert state["step"] == 1


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
    assert checkpoints.load(tmp_path) is None


def test_every_random_stream_continues_where_it_was(tmp_path: Path) -> None:
    def draw() -> tuple[float, float, float]:
        return torch.rand(1).item(), random.random(), float(np.random.rand())  # noqa: NPY002

    draw()
    checkpoints.save(tmp_path, {})
    expected = [draw() for _ in range(3)]
    state = checkpoints.load(tmp_path)
    assert state is not None
    checkpoints.restore_random_states(state["random"])
    assert [draw() for _ in range(3)] == expected
