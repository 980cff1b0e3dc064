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
    """a · Σ_{s<t} D(Z_t, Z_s) + v · Σ_t V(Z_t).

    D estimates the squared distance of what two tasks' tokens are on average, ‖E z_t - E z_s‖², from the mean tokens z
    of a step's few samples, without the share that is their scatter (see `distance`). V(Z) = 1/d · Σ_j max(0, 1 -
    sqrt(Var(z_j) + ε)), with the unbiased variance over the task's samples: the variance term of VICReg (Bardes et al.
    2022, arXiv:2105.04906, section 4.1, eqs. 1 and 2), summed over tasks as there over two views. Without it constant
    tokens are an optimum. As for a batch norm, the samples are those that a process sees at a time.

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
        total = self._weight * distance(samples)
        if self._variance_weight:
            total = total + self._variance_weight * torch.stack([spread_hinge(one) for one in samples]).sum()
        return total * tokens.part


def distance(tasks: list[Tensor]) -> Tensor:
    """Σ_{s<t} max(0, ‖z̄_t - z̄_s‖² - v_t/B_t - v_s/B_s), z̄ the means and v the total variances of B samples.

    Means of a few samples scatter, each by v/B: the plain square would be larger by that on average, and smallest for
    tokens that do not depend on the image at all. Less it, the square is unbiased (Gretton et al. 2012, "A Kernel
    Two-Sample Test", JMLR 13, eq. 3, with the linear kernel); below 0 there is nothing left to align.

    Args:
        tasks: Mean tokens of T tasks, float [B_t, d] each.
    """
    means = [(z.mean(0), z.var(0).sum() / len(z) if len(z) > 1 else z.new_zeros(())) for z in tasks]
    pairs = [
        torch.relu((one - other).square().sum() - scatter - scatter_of_other)
        for (one, scatter), (other, scatter_of_other) in combinations(means, 2)
    ]
    return torch.stack(pairs).sum() if pairs else tasks[0].new_zeros(())


def spread_hinge(samples: Tensor) -> Tensor:
    """V(Z) of float [B, d]; 0 for a single sample, which has no spread."""
    if len(samples) < 2:
        return samples.new_zeros(())
    deviation = torch.sqrt(samples.var(0) + SMALLEST)
    return torch.relu(TARGET - deviation).mean()
