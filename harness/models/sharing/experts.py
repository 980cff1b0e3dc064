"""Experts and gates: what all mixtures of experts are made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.features import pooled


class Experts(nn.Module):
    """E small residual blocks f_e over one feature map, computed together.

    f_e(X) = X + conv(ReLU(norm(conv(X)))), with the norm over all channels and positions of an expert. The first
    convolutions read the same map and are one convolution with E times the channels; the second ones are one grouped
    convolution.

    Args:
        channels: C of the map.
        count: E.
        width: Channels between an expert's two convolutions.
        kernel: Side of both.
    """

    def __init__(self, channels: int, count: int, width: int, kernel: int) -> None:
        super().__init__()
        self.count = count
        self.inward = nn.Conv2d(channels, count * width, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.GroupNorm(count, count * width)
        self.outward = nn.Conv2d(count * width, count * channels, kernel, padding=kernel // 2, groups=count)

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, C, h, w] to the E outputs, float [B, E, C, h, w]."""
        changes = self.outward(F.relu(self.norm(self.inward(features))))
        return features[:, None] + changes.unflatten(1, (self.count, -1))


class Gate(nn.Module):
    """softmax(W GAP(X)) (Ma 2018, eq. 5-6): the weights of the experts for each image.

    It reads the pooled map, so that it has C·E weights and takes images of any size. Gates on flattened pixels have
    hundreds of thousands and take one size only.

    Args:
        channels: C of the map.
        count: E.

    Attributes:
        keeps: Whether to keep the weights of the last call, without gradient, for whoever watches.
        kept: float [B, E], these weights, or None.
    """

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.keeps = False
        self.kept: Tensor | None = None
        self.linear = nn.Linear(channels, count, bias=False)

    def forward(self, features: Tensor, padding: Tensor | None = None) -> Tensor:
        """Weigh the experts.

        Args:
            features: float [B, C, h, w].
            padding: bool [B, h, w], True at positions that do not count; None where all do.

        Returns:
            float [B, E] in [0, 1], rows sum to 1.
        """
        weights: Tensor = self.linear(pooled(features, padding)).softmax(1)
        if self.keeps:
            self.kept = weights.detach()
        return weights


def mixed(weights: Tensor, outputs: Tensor) -> Tensor:
    """Σ_e weights_e outputs_e.

    Args:
        weights: float [B, E].
        outputs: float [B, E, C, h, w].

    Returns:
        float [B, C, h, w].
    """
    return torch.einsum("be,bechw->bchw", weights, outputs)
