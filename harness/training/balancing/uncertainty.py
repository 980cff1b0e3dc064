"""Uncertainty weighting: each task's loss is divided by a variance that is learned beside the network."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from harness.documents import Section
from harness.training.balancing.base import Balancer, Setting


class Uncertainty(Balancer):
    """Σ exp(-s_t) L_t + s_t / 2, with a learned s_t = log σ_t² for each task, 0 at the start and without weight decay.

    This is the form for likelihoods of classes; all losses here are cross-entropies or, in detection, are led by one.
    (A regression's squared error would have half the factor.) The second term keeps the variances from growing.
    Learning s and not σ keeps σ² positive. Source: Kendall et al. 2018 (arXiv:1705.07115), section 3.2, eq. 10.

    Args:
        config: The method's section.
        setting: Tells the tasks.
    """

    def __init__(self, config: Section, setting: Setting) -> None:
        super().__init__(config, setting)
        # One of each task's own: of a task without a loss in a step the optimizer moves nothing, its momentum included.
        self.log_variance = nn.ParameterDict({task: nn.Parameter(torch.zeros(())) for task in self.tasks})

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of scalar losses; tasks without a loss in this step have no part in it."""
        s = torch.stack([self.log_variance[task] for task in losses])
        return (torch.exp(-s) * torch.stack(list(losses.values())) + s / 2).sum()
