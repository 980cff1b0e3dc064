"""Affinities of tasks: the paper's formula, and that looking changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests_support import document
from torch import Tensor, nn

from harness.progress import Reporter
from harness.runs import run
from harness.submission import Submission
from harness.training.affinity import affinity
from harness.training.engine import Engine

QUIET = Reporter(quiet=True)


class Toy(nn.Module):
    """L_a = w^2 + (u - 1)^2, L_b = (w - 3)^2; w is shared, u is a's own."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(1.0))
        self.u = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, batches: Any, shares: Any = None, samples: Any = None) -> dict[str, Tensor]:
        self.seen += 1  # type: ignore[operator]
        return {"a": self.w**2 + (self.u - 1) ** 2, "b": (self.w - 3) ** 2}


def test_affinity_is_the_relative_fall_of_the_loss_after_a_plain_step_in_shared_weights() -> None:
    toy = Toy()
    found = affinity(toy, Engine("32"), {"a": None, "b": None}, 1, rate=0.1)  # type: ignore[dict-item]
    # At w = 1, u = 2: L_a = 2, L_b = 4, dL_a/dw = 2, dL_b/dw = -4. A step for a leads to w = 0.8, for b to w = 1.4.
    # u, a's own, stays where it is: with it a's own affinity would be 1 - (0.64 + 0.64) / 2.
    assert found == pytest.approx(
        {
            "affinity/a|a": 1 - (0.8**2 + 1) / 2,
            "affinity/a|b": 1 - 2.2**2 / 4,
            "affinity/b|a": 1 - (1.4**2 + 1) / 2,
            "affinity/b|b": 1 - 1.6**2 / 4,
        }
    )
    assert found["affinity/a|b"] < 0
    assert [value.item() for value in toy.state_dict().values()] == [1.0, 2.0, 0.0]
    assert toy.w.grad is None


def test_a_loss_of_nought_has_no_relative_fall() -> None:
    toy = Toy()
    with torch.no_grad():
        toy.w.fill_(3.0)
    found = affinity(toy, Engine("32"), {"a": None, "b": None}, 1, rate=0.1)  # type: ignore[dict-item]
    assert set(found) == {"affinity/a|a", "affinity/b|a"}


class Apart(Toy):
    """Two tasks that share nothing."""

    def forward(self, batches: Any, shares: Any = None, samples: Any = None) -> dict[str, Tensor]:
        self.seen += 1  # type: ignore[operator]
        losses = {"a": (self.u - 1) ** 2, "b": (self.w - 3) ** 2}
        return {task: losses[task] for task in batches}


@pytest.mark.parametrize("tasks", ["a", "ab"])
def test_tasks_that_share_nothing_have_no_affinity(tasks: str) -> None:
    """It would be exactly 0, a task's own as well, and the mean over steps would be drawn to it."""
    assert affinity(Apart(), Engine("32"), dict.fromkeys(tasks), 1, rate=0.1) == {}  # type: ignore[arg-type]


@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize("accumulation", [1, 2])
def test_looking_at_affinities_does_not_change_training(tmp_path: Path, accumulation: int) -> None:
    raw = document(steps=4)
    raw["training"] |= {"accumulation": accumulation}
    plain = run(Submission.model_validate(raw), 0, tmp_path / "a", tmp_path / "board-a", QUIET)
    raw["training"] |= {"log_affinity": 2}
    looked = run(Submission.model_validate(raw), 0, tmp_path / "b", tmp_path / "board-b", QUIET)
    assert looked.weights == plain.weights
    assert looked.fingerprint == plain.fingerprint
    names = {task["dataset"] for task in raw["tasks"]}
    assert set(looked.affinity()) == {f"{a}|{b}" for a in names for b in names}
    assert [step for step, _ in looked.curves["affinity/shapes-vqa|shapes-detection"]] == [2, 4]
    assert plain.affinity() == {}
    # A small step for a task itself lowers its loss.
    assert looked.affinity()["shapes-segmentation|shapes-segmentation"] > 0
