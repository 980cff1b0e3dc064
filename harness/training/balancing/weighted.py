"""Fixed weights: every loss counts alike, or as the submission says."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from harness.documents import Section
from harness.training.balancing.base import Balancer, Setting


class Equal(Balancer):
    """The sum of the losses: Σ L_t."""

    constant = True


class Manual(Balancer):
    """The weighted sum of the losses, Σ w_t L_t, with the weights of the submission.

    Args:
        config: The method's section.
        setting: Tells the weights.
    """

    constant = True

    def __init__(self, config: Section, setting: Setting) -> None:
        super().__init__(config, setting)
        self.weights = dict(setting.weights)

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of scalar losses."""
        return torch.stack([self.weights[task] * loss for task, loss in losses.items()]).sum()
