"""Segmentation head: UPerNet on our pyramid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.data.batches import SegmentationBatch
from harness.models.config import UperNetConfig
from harness.models.features import Features, FeatureShape
from harness.models.heads.segmentation import SegmentationHead

SCALES = (1, 2, 3, 6)  # cells per side of the pooled context (PSPNet; Zhao 2017)
GROUP = 16  # channels that are normalised together


class UperNetHead(SegmentationHead):
    """Segmentation: UPerNet (Xiao 2018): pooled context, top-down path, all levels fused.

    The pyramid's levels stand where the published head has the backbone's. Layers are normalised in groups of
    channels, not over the batch: context pooled to one cell has no variance over a batch of one image.

    Args:
        config: Options.
        shape: Feature sizes.
        classes: C.
    """

    def __init__(self, config: UperNetConfig, shape: FeatureShape, classes: int) -> None:
        super().__init__()
        width = config.channels
        self._strides = shape.strides
        # One pooled cell is one value per channel, and a group of them keeps its differences: norms are safe here.
        self.context = nn.ModuleList(_layer(shape.channels, width, 1) for _ in SCALES)
        self.lateral = nn.ModuleList(_layer(shape.channels, width, 1) for _ in shape.strides[:-1])
        self.bottleneck = _layer(shape.channels + len(SCALES) * width, width, 3)
        self.smooth = nn.ModuleList(_layer(width, width, 3) for _ in shape.strides[:-1])
        self.fuse = _layer(len(shape.strides) * width, width, 3)
        self.classifier = nn.Sequential(nn.Dropout2d(config.dropout), nn.Conv2d(width, classes, 1))

    def logits(self, features: Features, batch: SegmentationBatch) -> Tensor:
        """Logits at the finest level, float [B, C, h, w]."""
        levels = list(features.pyramid.values())
        maps = [lateral(level) for lateral, level in zip(self.lateral, levels, strict=False)]
        maps.append(self.bottleneck(self._with_context(levels[-1], batch.contents)))
        for finer in range(len(maps) - 2, -1, -1):
            maps[finer] = maps[finer] + _resize(maps[finer + 1], maps[finer])
        smoothed = [smooth(level) for smooth, level in zip(self.smooth, maps, strict=False)] + maps[-1:]
        return self.classifier(self.fuse(torch.cat([_resize(level, maps[0]) for level in smoothed], dim=1)))

    def _with_context(self, level: Tensor, contents: Tensor | None) -> Tensor:
        """The level and, at every position, the pooled context; what lies in the padding is not pooled."""
        if contents is None:
            return torch.cat([level, *self._context(level)], dim=1)
        joined = []
        for one, (height, width) in zip(level.split(1), (-(-contents // self._strides[-1])).tolist(), strict=True):
            part = one[..., :height, :width]
            pad = (0, one.shape[-1] - part.shape[-1], 0, one.shape[-2] - part.shape[-2])
            joined.append(torch.cat([one, *(F.pad(context, pad) for context in self._context(part))], dim=1))
        return torch.cat(joined)

    def _context(self, level: Tensor) -> list[Tensor]:
        return [
            _resize(layer(F.adaptive_avg_pool2d(level, scale)), level)
            for scale, layer in zip(SCALES, self.context, strict=True)
        ]


def _layer(channels: int, width: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False),
        nn.GroupNorm(width // GROUP, width),
        nn.ReLU(),
    )


def _resize(level: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(level, like.shape[-2:], mode="bilinear", align_corners=False)
