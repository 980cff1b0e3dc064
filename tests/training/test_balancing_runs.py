"""Runs with balancing: going on from a checkpoint, what the curves show, several processes, compiled networks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import QUIET, equal, prepare, trained

from harness.training import checkpoints
from harness.training.engine import Engine
from harness.training.loop import train

pytestmark = pytest.mark.usefixtures("tiny_suite")


class Stop(Exception):
    pass


@pytest.mark.parametrize(
    "options",
    [{"name": "gradvac"}, {"name": "gradnorm"}, {"name": "famo"}, {"name": "dwa", "epoch": 1}, {"name": "dtp"}],
    ids=lambda options: options["name"],
)
def test_a_run_that_is_stopped_and_resumed_ends_in_the_same_weights_and_curves(
    tmp_path: Path,
    options: dict[str, Any],
) -> None:
    changes = {"balancing": options, "log_gradients": 3}
    whole, expected = trained(tmp_path / "whole", **changes)
    submission, network, data = prepare(**changes)
    original, folder = checkpoints.save, tmp_path / "parts"
    folder.mkdir()

    def save_and_stop(where: Path, state: dict[str, Any]) -> None:
        original(where, state)
        if state["progress"]["step"] == 3:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "save", save_and_stop)
        with pytest.raises(Stop):
            train(submission, network, Engine("32"), data, folder, QUIET)
    parts, progress = trained(folder, **changes)
    assert equal(whole, parts)
    assert progress.curves == expected.curves
    shown = {name for name in expected.curves if name.startswith("weight/")}
    assert shown == {f"weight/shapes-{task}" for task in ("classification", "detection", "segmentation", "vqa")}


def test_curves_have_cosines_at_their_interval_and_nothing_else_changes(tmp_path: Path) -> None:
    plain, without = trained(tmp_path / "a")
    looked, progress = trained(tmp_path / "b", log_gradients=3)
    assert equal(plain, looked)
    cosines = {name: curve for name, curve in progress.curves.items() if name not in without.curves}
    assert len(cosines) == 6
    assert all(name.startswith("cosine/shapes-") for name in cosines)
    assert {tuple(step for step, _ in curve) for curve in cosines.values()} == {(3, 6)}
    assert all(-1 <= value <= 1 for curve in cosines.values() for _, value in curve)
    assert {name: progress.curves[name] for name in without.curves} == without.curves


def test_methods_on_gradients_show_cosines_at_every_point(tmp_path: Path) -> None:
    _, progress = trained(tmp_path, balancing={"name": "upgrad"})
    assert [step for step, _ in progress.curves["cosine/shapes-detection|shapes-vqa"]] == [2, 4, 6]


def test_constant_weights_are_not_shown(tmp_path: Path) -> None:
    _, progress = trained(tmp_path)
    assert not any(name.startswith(("weight/", "cosine/")) for name in progress.curves)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="needs a C++ compiler")
def test_a_backward_pass_per_task_goes_through_a_compiled_network(tmp_path: Path) -> None:
    """Torch's cache of compiled programs would give them one that overwrites what the second task's pass needs."""
    changes: dict[str, Any] = {"balancing": {"name": "log"}, "accumulation": 2, "steps": 2}
    _, plain = trained(tmp_path / "a", **changes)
    torch.compiler.reset()
    once = changes | {"balancing": {"name": "equal"}, "steps": 1}
    trained(tmp_path / "first", **once, compile=True)  # fills the cache with a program for one backward pass
    torch.compiler.reset()
    _, compiled = trained(tmp_path / "b", **changes, compile=True)
    for curve in plain.curves:
        if curve.startswith("loss/"):
            expected = [value for _, value in plain.curves[curve]]
            assert [value for _, value in compiled.curves[curve]] == pytest.approx(expected, rel=2e-3)
