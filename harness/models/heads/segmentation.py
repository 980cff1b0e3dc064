"""Segmentation head: pyramid levels summed at the finest stride, then torchvision's FCN head."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.fcn import FCNHead

from harness.data.batches import SegmentationBatch
from harness.models.config import SegmentationHeadConfig
from harness.models.features import Features, FeatureShape

IGNORE = 255


class FcnHead(nn.Module):
    """Per-pixel cross-entropy over C classes, pixels labelled 255 ignored (FCN, Long 2015; sum as in Kirillov 2019).

    Args:
        config: Options.
        shape: Feature sizes.
        classes: C.
    """

    def __init__(self, config: SegmentationHeadConfig, shape: FeatureShape, classes: int) -> None:
        super().__init__()
        # FCNHead works at a quarter of its input width, which suits 2048 channels; a pyramid has a few dozen.
        self.expand = nn.Conv2d(shape.channels, 2 * shape.channels, 1)
        self.head = FCNHead(2 * shape.channels, classes)

    def loss(self, features: Features, batch: SegmentationBatch) -> Tensor:
        """Mean cross-entropy over labelled pixels, a scalar; 0 when a batch has none."""
        logits = F.interpolate(self._logits(features), batch.masks.shape[-2:], mode="bilinear", align_corners=False)
        total = F.cross_entropy(logits, batch.masks, ignore_index=IGNORE, reduction="sum")
        return total / (batch.masks != IGNORE).sum().clamp(min=1)

    def predict(self, features: Features, batch: SegmentationBatch) -> Tensor:
        """Logits at the size of the batch's images, padding included: float [B, C, H, W]."""
        return F.interpolate(self._logits(features), batch.images.shape[-2:], mode="bilinear", align_corners=False)

    def _logits(self, features: Features) -> Tensor:
        levels = list(features.pyramid.values())
        size = levels[0].shape[-2:]
        total = levels[0]
        for level in levels[1:]:
            total = total + F.interpolate(level, size, mode="bilinear", align_corners=False)
        return self.head(self.expand(total))
