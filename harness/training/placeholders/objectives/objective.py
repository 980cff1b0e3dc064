"""What every objective of placeholder tokens is, and all of a run's together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness.data.loading import TaskData
from harness.data.transforms import derive_seed
from harness.documents import Section
from harness.models.backbones.base import ImageBackbone
from harness.models.network import MultiTaskNetwork
from harness.models.step_tokens import StepTokens
from harness.registry import look_up
from harness.submission import Submission
from harness.training.placeholders.objectives import OBJECTIVES

CURVE = "placeholder/"  # before an objective's name on the learning curves


@dataclass(frozen=True)
class Setting:
    """What an objective may know of the run.

    Attributes:
        submission: The recipe.
        seed: Of the objectives' random draws; the same in every process.
        width: d, width of a token.
        backbone: The image network, or the first of several; None where no task reads images.
    """

    submission: Submission
    seed: int
    width: int
    backbone: ImageBackbone | None

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks' dataset names."""
        return tuple(task.dataset for task in self.submission.tasks)


class Objective(nn.Module):
    """One term of the loss. Its weights are trained with the network's and are of no use in evaluation.

    Whatever is random in `forward` is a function of seed, step and sample, so that neither a resumed run nor another
    division into parts and processes changes it.

    Args:
        config: Its section.
        setting: What it may know of the run.
    """

    step: int = 0

    def __init__(self, config: Section, setting: Setting) -> None:
        super().__init__()

    def forward(self, tokens: StepTokens) -> Tensor | None:
        """The term, a scalar, coefficient and share of the part included; None where a step has nothing for it."""
        raise NotImplementedError

    def begin(self, network: MultiTaskNetwork, data: Mapping[str, TaskData]) -> None:
        """Called once in the main process before the first step of a run, with the training images by task."""


class Objectives(nn.ModuleDict):
    """All objectives of a run, by name.

    Attributes:
        step: Number of the step that is under way, from 0. Training sets it.
    """

    step: int = 0

    def forward(self, tokens: StepTokens) -> dict[str, Tensor]:
        """The terms of one forward pass, by their names on the learning curves."""
        found: dict[str, Tensor] = {}
        for name, one in self.items():
            assert isinstance(one, Objective)
            one.step = self.step
            term = one(tokens)
            if term is not None:
                found[CURVE + name] = term
        return found

    def begin(self, network: MultiTaskNetwork, data: Mapping[str, TaskData]) -> None:
        """See `Objective`."""
        for one in self.values():
            assert isinstance(one, Objective)
            one.begin(network, data)


def add_objectives(network: MultiTaskNetwork, submission: Submission) -> None:
    """Give a network the objectives that its submission switches on.

    Their weights are drawn from a random stream of their own: the network's are the same with and without.

    Args:
        network: Freshly drawn; left as it is where nothing is switched on.
        submission: Its own.

    Raises:
        HarnessError: An objective does not fit the network.
    """
    wanted = submission.training.placeholders
    configs = {name: getattr(wanted, name) for name in OBJECTIVES}
    if network.placeholders is None or all(config is None for config in configs.values()):
        return
    seed = derive_seed("placeholder objectives", torch.initial_seed())
    backbone = next((module for module in network.modules() if isinstance(module, ImageBackbone)), None)
    setting = Setting(submission, seed, submission.model.placeholders.width, backbone)
    objectives = Objectives()
    with torch.random.fork_rng(devices=[]):
        for name, config in configs.items():
            if config is not None:
                torch.manual_seed(derive_seed(name, seed))  # each its own, so that none depends on another
                objectives[name] = look_up(OBJECTIVES, name, "objective of placeholder tokens")(config, setting)
    network.objectives = objectives


def perceptron(inputs: int, outputs: int) -> nn.Sequential:
    """Two layers on normed tokens, which start small."""
    return nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, inputs), nn.GELU(), nn.Linear(inputs, outputs))
