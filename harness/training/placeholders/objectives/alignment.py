"""Alignment: the tasks' mean tokens come together, and do not collapse."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from harness.documents import Section
from harness.models.step_tokens import StepTokens
from harness.training.placeholders.objectives.config import AlignmentConfig
from harness.training.placeholders.objectives.objective import Objective, Setting

TARGET, SMALLEST = 1.0, 1e-4  # γ and ε of VICReg


class Alignment(Objective):
    """a · Σ_{s<t} ‖z̄_t - z̄_s‖² + v · Σ_t V(Z_t).

    z̄_t is the mean of a task's final tokens over tokens and samples. V(Z) = 1/d · Σ_j max(0, 1 - sqrt(Var(z_j) + ε)) of
    the samples' mean tokens z, with the unbiased variance over the task's samples: the variance term of VICReg (Bardes
    et al. 2022, arXiv:2105.04906, section 4.1, eqs. 1 and 2), summed over tasks as there over two views. Without it
    constant tokens are the optimum. As for a batch norm, the samples are those that a process sees at a time.

    Args:
        config: The weights a and v.
        setting: Unused.
    """

    def __init__(self, config: Section, setting: Setting) -> None:
        assert isinstance(config, AlignmentConfig)
        super().__init__(config, setting)
        self._weight, self._variance_weight = config.weight, config.variance_weight

    def forward(self, tokens: StepTokens) -> Tensor | None:
        """See `Objective`."""
        samples = [ends.float().mean(1) for ends in tokens.ends.values()]
        total = self._weight * distance([one.mean(0) for one in samples])
        if self._variance_weight:
            total = total + self._variance_weight * torch.stack([spread_hinge(one) for one in samples]).sum()
        return total * tokens.part


def distance(means: list[Tensor]) -> Tensor:
    """Σ_{s<t} ‖z̄_t - z̄_s‖² of T means, float [d] each."""
    pairs = [(one - other).square().sum() for one, other in combinations(means, 2)]
    return torch.stack(pairs).sum() if pairs else means[0].new_zeros(())


def spread_hinge(samples: Tensor) -> Tensor:
    """V(Z) of float [B, d]; 0 for a single sample, which has no spread."""
    if len(samples) < 2:
        return samples.new_zeros(())
    deviation = torch.sqrt(samples.var(0) + SMALLEST)
    return torch.relu(TARGET - deviation).mean()
