"""IMTL-L: each task's loss is brought to the same size by a scale that is learned beside the network."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from harness.documents import Section
from harness.training.balancing.base import Balancer, Setting


class ImpartialLosses(Balancer):
    """IMTL-L: Σ exp(s_t) L_t - s_t, with a learned s_t for each task, 0 at the start and without weight decay.

    Every s_t settles where exp(s_t) L_t = 1, so a loss that is multiplied by a constant ends with the same gradient.
    (Uncertainty weighting, with s / 2, settles at one half.) Source: Liu et al. 2021 (ICLR, "Towards Impartial
    Multi-task Learning"), section 3.2, with a = e and b = 1.

    Args:
        config: The method's section.
        setting: Tells the tasks.
    """

    def __init__(self, config: Section, setting: Setting) -> None:
        super().__init__(config, setting)
        # One of each task's own: of a task without a loss in a step the optimizer moves nothing, its momentum included.
        self.log_scale = nn.ParameterDict({task: nn.Parameter(torch.zeros(())) for task in self.tasks})

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of scalar losses; tasks without a loss in this step have no part in it."""
        s = torch.stack([self.log_scale[task] for task in losses])
        return (torch.exp(s) * torch.stack(list(losses.values())) - s).sum()
