"""Losses and gradients that are not finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests_support import document
from torch import Tensor

from harness.errors import HarnessError
from harness.models.network import MultiTaskNetwork
from harness.progress import Reporter
from harness.run_data import build_network, open_data, task_data
from harness.submission import Submission
from harness.training.engine import Engine
from harness.training.loop import seed_everything, train

pytestmark = pytest.mark.usefixtures("tiny_suite")


class Poison(torch.autograd.Function):
    """Changes nothing on the way there and everything on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * float("inf")


def diverge(folder: Path, poisoned: torch.nn.Module, network: MultiTaskNetwork, submission: Submission) -> None:
    poisoned.register_forward_hook(lambda module, inputs, output: Poison.apply(output))
    splits = open_data(submission)
    data = {name: task_data(submission, 0, splits, name, training=True) for name in splits.train}
    train(submission, network, Engine("32"), data, folder, Reporter(quiet=True))


def built(**training: Any) -> tuple[Submission, MultiTaskNetwork]:
    raw = document()
    raw["training"] |= training
    submission = Submission.model_validate(raw)
    seed_everything(0)
    return submission, build_network(submission, open_data(submission))


@pytest.mark.parametrize("clip", [10.0, None])
def test_a_gradient_that_is_not_finite_names_the_task_that_it_comes_from(tmp_path: Path, clip: float | None) -> None:
    submission, network = built(gradient_clip=clip)
    before = {name: value.clone() for name, value in network.named_parameters()}
    with pytest.raises(HarnessError, match=r"norm of the gradient of shapes-segmentation became (nan|inf) at step 0"):
        diverge(tmp_path, network.heads["shapes-segmentation"].head[-1], network, submission)
    assert all(torch.equal(before[name], value) for name, value in network.named_parameters())


def test_a_gradient_that_all_tasks_spoil_names_the_step_alone(tmp_path: Path) -> None:
    submission, network = built()
    assert network.shared is not None
    stem = network.shared.trunk.backbone.body.conv1  # type: ignore[union-attr]
    with pytest.raises(HarnessError, match=r"the norm of the gradient became (nan|inf) at step 0"):
        diverge(tmp_path, stem, network, submission)
