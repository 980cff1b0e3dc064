"""Maps of several strides from a network that has one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

STRIDES = (4, 8, 16, 32)


class SimplePyramid(nn.Module):
    """ViTDet's simple feature pyramid (Li 2022 §3): every level is made from the last map alone.

    A finer level comes from 2 x 2 transposed convolutions of stride 2 that halve the channels each time (with a norm
    and GELU between two of them), a coarser one from max pooling, and each ends in a norm. A map whose stride is no
    power of two (patches of 14) is first resampled linearly to the nearest one, position by position in pixels.

    Args:
        stride: Of the map that comes in.
        channels: C, its channels.
        strides: Of the levels to make; each one of 4, 8, 16, 32.
    """

    def __init__(self, stride: int, channels: int, strides: Sequence[int]) -> None:
        super().__init__()
        self._from = stride
        self._base = min(STRIDES, key=lambda other: abs(math.log(other / stride)))
        self.levels = nn.ModuleDict()
        self.channels: dict[int, int] = {}
        for wanted in strides:
            layers: list[nn.Module] = []
            width, current = channels, self._base
            while current > wanted:
                if layers:
                    layers += [LayerNorm2d(width), nn.GELU()]
                layers.append(nn.ConvTranspose2d(width, max(width // 2, 1), 2, 2))
                width, current = max(width // 2, 1), current // 2
            if current < wanted:
                layers.append(nn.MaxPool2d(wanted // current, ceil_mode=True))
            self.levels[str(wanted)] = nn.Sequential(*layers, LayerNorm2d(width))
            self.channels[wanted] = width

    def forward(self, features: Tensor, size: tuple[int, int]) -> dict[int, Tensor]:
        """Make the levels.

        Args:
            features: float [B, C, h, w].
            size: Height and width in pixels that the levels are to cover.

        Returns:
            float [B, C', ceil(H/stride), ceil(W/stride)] by stride, wherever the map covers so much.
        """
        if self._from != self._base:
            ratio = self._base / self._from
            grid = [math.ceil(side / self._base) for side in size]
            rows, columns = (
                _linear(cells, known, ratio, features) for cells, known in zip(grid, features.shape[-2:], strict=True)
            )
            features = rows @ features @ columns.T
        return {int(stride): level(features) for stride, level in self.levels.items()}


def _linear(cells: int, known: int, ratio: float, like: Tensor) -> Tensor:
    """Weights [cells, known] that interpolate linearly at the middle of new cells, each `ratio` old ones wide."""
    middles = ((torch.arange(cells, device=like.device) + 0.5) * ratio - 0.5).clamp(0, known - 1)
    distances = (middles[:, None] - torch.arange(known, device=like.device)).abs()
    return (1 - distances).clamp(min=0).to(like.dtype)
