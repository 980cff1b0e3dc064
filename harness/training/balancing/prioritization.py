"""Dynamic task prioritization: tasks that do badly weigh more."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from harness.documents import Section
from harness.training.balancing.base import Balancer, Setting
from harness.training.balancing.config import DtpConfig

LEAST, MOST = 0.01, 0.99


class DynamicTaskPrioritization(Balancer):
    """DTP: Σ -(1 - κ_t)^γ log(κ_t) L_t, with κ_t the moving average of how well a task does, from 0.01 to 0.99.

    How well is told by the head for each training batch (see `Head`): the share of images classified right, of
    labelled pixels, the official accuracy of the best answer, for boxes (1 + GIoU) / 2 at positions with a box, or with
    Faster R-CNN the share of regions classified right. It is not made of the loss, whose size says nothing across
    tasks. Weights are those of the steps before; in a task's first step its weight is 1. Source: Guo et al. 2018
    (ECCV, "Dynamic Task Prioritization for Multitask Learning"), eq. 2 to 4; the bounds of κ are ours.

    Args:
        config: γ and the share of a step in the average.
        setting: Tells the tasks.
    """

    measures = True

    def __init__(self, config: Section, setting: Setting) -> None:
        super().__init__(config, setting)
        assert isinstance(config, DtpConfig)
        self._gamma, self._smoothing = config.gamma, config.smoothing
        self._averages: dict[str, float] = {}

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of scalar losses."""
        return torch.stack([self._weight(task) * loss for task, loss in losses.items()]).sum()

    def judge(self, indicators: Mapping[str, float]) -> None:
        """Take up a step's indicators."""
        for task, found in indicators.items():
            before = self._averages.get(task, found)
            self._averages[task] = self._smoothing * found + (1 - self._smoothing) * before

    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"averages": self._averages}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore `get_extra_state`."""
        self._averages = dict(state["averages"])

    def _weight(self, task: str) -> float:
        if task not in self._averages:
            return 1.0
        kpi = min(max(self._averages[task], LEAST), MOST)
        return -((1 - kpi) ** self._gamma) * math.log(kpi)
