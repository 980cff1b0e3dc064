"""The sum of logarithms: what counts is by what share a loss falls."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from harness.training.balancing.base import Balancer

SMALLEST = 1e-12  # a smaller loss has no say: its weight of 1 / L would be all there is


class Logarithm(Balancer):
    """The sum of the logarithms of the losses, Σ log L_t, which is the same for losses of any scale.

    Its gradient is Σ ∇L_t / L_t, that of the geometric mean up to a common factor. Source: Chennupati et al. 2019
    (arXiv:1904.08492, geometric loss strategy); as a sum of logarithms: Navon et al. 2022 (arXiv:2202.01017), baseline
    "scale-invariant" (SI).
    """

    linear = False

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Sum of logarithms of scalar losses; one of next to 0 has no gradient."""
        return torch.log(torch.stack(list(losses.values())).clamp(min=SMALLEST)).sum()
