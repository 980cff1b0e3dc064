"""FAMO: all losses fall at the same relative rate, without a gradient per task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from harness.documents import Section
from harness.training.balancing.base import SelfLearning, Setting
from harness.training.balancing.config import FamoConfig

SMALLEST = 1e-8  # a loss of 0 has no logarithm; the official code adds this


class Famo(SelfLearning):
    """FAMO: Σ c z_t log L_t with z = softmax(ξ) and c = 1 / Σ (z_t / L_t), so that the weights of the losses sum to 1.

    After the optimizer's step the losses of the same batches are looked at again, without gradient and without a trace
    in batch-norm statistics, and ξ goes against the gradient of Σ z_t (log L_t(before) - log L_t(after)): tasks whose
    loss fell by a smaller share gain weight. Source: Liu et al. 2023 (arXiv:2306.03792), algorithm 1, with Adam for ξ
    and the learning rate as in the authors' code.

    Args:
        config: Learning rate and decay of ξ.
        setting: Tells the tasks.
    """

    linear = False
    looks_back = True

    def __init__(self, config: Section, setting: Setting) -> None:
        assert isinstance(config, FamoConfig)
        super().__init__(config, setting, 0.0, config.learning_rate, config.decay)
        self._before: dict[str, float] = {}

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """A scalar whose gradient is the weighted sum of those of the losses."""
        values = torch.stack(list(losses.values())) + SMALLEST
        shares = torch.softmax(self.numbers(list(losses)), 0).to(values)
        scale = 1 / (shares / values.detach()).sum()
        return (scale * shares * torch.log(values)).sum()

    def observe(self, losses: Mapping[str, float]) -> None:
        """Remember the losses before the optimizer's step."""
        self._before = dict(losses)

    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint must hold, and what a second pass of the same step must not change."""
        return super().get_extra_state() | {"before": self._before}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore `get_extra_state`."""
        super().set_extra_state(state)
        self._before = dict(state["before"])

    def look_back(self, losses: Mapping[str, float]) -> None:
        """Shift weight to the tasks whose losses fell by the smallest share."""
        if not losses or not all(map(math.isfinite, losses.values())):
            return  # all tasks rest; or the next step stops at it
        fell = [math.log(self._before[task] + SMALLEST) - math.log(after + SMALLEST) for task, after in losses.items()]
        shares = torch.softmax(self.numbers(list(losses)), 0).tolist()
        mean = math.fsum(share * one for share, one in zip(shares, fell, strict=True))
        self.learn({task: share * (one - mean) for task, share, one in zip(losses, shares, fell, strict=True)})
