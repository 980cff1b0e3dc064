"""Dynamic weight average: losses that fall slowly from epoch to epoch weigh more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from harness.documents import Section
from harness.training.balancing.base import Balancer, Setting
from harness.training.balancing.config import DwaConfig


class DynamicWeightAverage(Balancer):
    """DWA: Σ w_t L_t with w = T · softmax(r / 2) and r_t = L_t(e-1) / L_t(e-2), means over the last two epochs.

    In the first two epochs r is 1 for all. An epoch is as many steps as the task that takes longest needs to see its
    data once, the same for all tasks, for rates over spans of different lengths could not be compared (ours; in the
    paper all tasks have one data set). Ratios of single steps, which some code takes, are mostly noise. Source: Liu et
    al. 2019 (arXiv:1803.10704), section 3.3, eq. 7.

    Args:
        config: Temperature, and an epoch's steps if they are given.
        setting: Tells tasks and an epoch's steps.
    """

    def __init__(self, config: Section, setting: Setting) -> None:
        super().__init__(config, setting)
        assert isinstance(config, DwaConfig)
        self._temperature = config.temperature
        self._epoch = config.epoch or setting.epoch
        self._step = 0
        self._sums: dict[str, list[float]] = {}  # sum and number of this epoch's losses
        self._means: list[dict[str, float]] = []  # of the last two epochs, the older one first

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of scalar losses."""
        values = torch.stack(list(losses.values()))
        rates = torch.tensor([self._rate(task) for task in losses], dtype=torch.float64)
        weights = len(losses) * torch.softmax(rates / self._temperature, 0)
        return (weights.to(values) * values).sum()

    def observe(self, losses: Mapping[str, float]) -> None:
        """Take up a step's losses; at the end of an epoch, their means."""
        for task, loss in losses.items():
            total = self._sums.setdefault(task, [0.0, 0.0])
            total[0] += loss
            total[1] += 1
        self._step += 1
        if self._step % self._epoch == 0:
            means = {task: total / count for task, (total, count) in self._sums.items()}
            self._means = [*self._means[-1:], means]
            self._sums = {}

    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"step": self._step, "sums": self._sums, "means": self._means}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore `get_extra_state`."""
        self._step, self._sums, self._means = state["step"], state["sums"], state["means"]

    def _rate(self, task: str) -> float:
        """1 without two epochs that the task had a part in."""
        older, newer = (means.get(task, 0.0) for means in self._means) if len(self._means) == 2 else (0.0, 0.0)
        return newer / older if older > 0 and newer > 0 else 1.0
