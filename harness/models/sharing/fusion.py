"""Pyramid levels fused before heads read them: every level becomes a mix of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.features import FeatureShape
from harness.models.sharing.joining import Projection


class LevelFusion(nn.Module):
    """For every stride, all levels brought to its size (bilinear) and made one.

    ``concat``: concatenated and projected by a 1x1 convolution, which starts as the level itself. ``attention``:
    Σ_l softmax_l(w·x_l) x_l at every position, with one w for each stride and level, which starts at 0, as the mean
    (the attention over scales of Chen 2016, "Attention to Scale", arXiv:1511.03339, eq. 1-2, for levels).

    Args:
        shape: Sizes of the pyramid.
        kind: Which.
    """

    def __init__(self, shape: FeatureShape, kind: Literal["concat", "attention"]) -> None:
        super().__init__()
        count = len(shape.strides)
        self.units = nn.ModuleDict()
        for stride in shape.strides:
            if kind == "concat":
                self.units[str(stride)] = Projection([shape.channels] * count, (1.0, *[0.0] * (count - 1)))
            else:
                self.units[str(stride)] = LevelAttention(shape.channels, count)

    def forward(self, pyramid: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Fuse float [B, C, h, w] by stride; the result has the same sizes. Each level comes first in its own mix."""
        fused = {}
        for stride, own in pyramid.items():
            others = [_resized(level, own) for other, level in pyramid.items() if other != stride]
            fused[stride] = self.units[str(stride)]([own, *others])
        return fused


class LevelAttention(nn.Module):
    """Σ_l softmax_l(w_l·x_l) x_l at every position.

    Args:
        channels: C of every level.
        count: How many levels.
    """

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(count, channels))

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels float [B, C, h, w] to one."""
        stacked = torch.stack(list(levels), 1)
        scores = torch.einsum("lc,blchw->blhw", self.weight, stacked).softmax(1)
        return (scores[:, :, None] * stacked).sum(1)


def _resized(level: Tensor, like: Tensor) -> Tensor:
    if level.shape[-2:] == like.shape[-2:]:
        return level
    return F.interpolate(level, like.shape[-2:], mode="bilinear", align_corners=False)
