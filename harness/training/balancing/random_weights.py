"""Random loss weighting: what a method must beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.data.transforms import derive_seed
from harness.documents import Section
from harness.training.balancing.base import Balancer, Setting


class RandomWeights(Balancer):
    """RLW: Σ w_t L_t with w = T · softmax(z), z ~ N(0, 1) anew in every step.

    The weights of a step sum to T. (Many have weights that sum to 1, which also divides the learning rate by T.) A draw
    is a function of the run's seed, the step and the task's name: the same in every process and on every resume, and
    the network's own random stream goes on as without it. Source: Lin et al. 2022 (arXiv:2111.10603), section 3.

    Args:
        config: The method's section.
        setting: Tells tasks and seed.
    """

    def __init__(self, config: Section, setting: Setting) -> None:
        super().__init__(config, setting)
        self._seed, self._step = setting.seed, 0

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of scalar losses."""
        values = torch.stack(list(losses.values()))
        keys = [derive_seed("rlw", self._seed, self._step, task) for task in losses]
        drawn = torch.tensor([np.random.default_rng(key).normal() for key in keys], dtype=torch.float64)
        return ((len(keys) * torch.softmax(drawn, 0)).to(values) * values).sum()

    def observe(self, losses: Mapping[str, float]) -> None:
        """The next step draws anew."""
        self._step += 1

    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"step": self._step}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore `get_extra_state`."""
        self._step = state["step"]
