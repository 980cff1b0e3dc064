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
        self._rows = {task: row for row, task in enumerate(self.tasks)}
        self.log_variance = nn.Parameter(torch.zeros(len(self._rows)))

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of scalar losses; tasks without a loss in this step have no part in it."""
        s = self.log_variance[[self._rows[task] for task in losses]]
        return (torch.exp(-s) * torch.stack(list(losses.values())) + s / 2).sum()
