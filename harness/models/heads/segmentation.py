"""Segmentation: what its heads share, and the plain one: levels summed, then torchvision's FCN head."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.fcn import FCNHead

from harness.data.batches import SegmentationBatch
from harness.models.config import FcnConfig
from harness.models.features import Features, FeatureShape
from harness.models.heads.head import Head

IGNORE = 255


class SegmentationHead(Head, ABC):
    """Per-pixel cross-entropy over C classes, pixels labelled 255 ignored."""

    @abstractmethod
    def logits(self, features: Features, batch: SegmentationBatch) -> Tensor:
        """Logits at the finest level, float [B, C, h, w]."""

    def loss(self, features: Features, batch: SegmentationBatch) -> Tensor:
        """Mean cross-entropy over labelled pixels, a scalar; 0 when a batch has none."""
        logits = self._resized(features, batch, batch.masks)
        total = F.cross_entropy(logits, batch.masks, ignore_index=IGNORE, reduction="sum")
        labelled = (batch.masks != IGNORE).sum().clamp(min=1)
        self.note(lambda: (logits.argmax(1) == batch.masks).sum() / labelled)
        return total / labelled

    def count(self, batch: SegmentationBatch) -> int:
        """The labelled pixels, over which `loss` is a mean."""
        return int((batch.masks != IGNORE).sum())

    def predict(self, features: Features, batch: SegmentationBatch) -> Tensor:
        """Logits at the size of the batch's images, padding included: float [B, C, H, W]."""
        return self._resized(features, batch, batch.images)

    def outputs(self, features: Features, batch: SegmentationBatch) -> tuple[Tensor, ...]:
        """The logits at the finest level, float [B, C, h, w]."""
        logits = self.logits(features, batch)
        return (features.stream.shift(logits) if features.stream is not None else logits,)

    def _resized(self, features: Features, batch: SegmentationBatch, like: Tensor) -> Tensor:
        (logits,) = self.outputs(features, batch)
        return F.interpolate(logits, like.shape[-2:], mode="bilinear", align_corners=False)


class FcnHead(SegmentationHead):
    """Segmentation: pyramid levels summed at the finest, then FCN (Long 2015; sum as in Kirillov 2019).

    Args:
        config: Options.
        shape: Feature sizes.
        classes: C.
    """

    def __init__(self, config: FcnConfig, shape: FeatureShape, classes: int) -> None:
        super().__init__()
        # FCNHead works at a quarter of its input width, which suits 2048 channels; a pyramid has a few dozen.
        self.expand = nn.Conv2d(shape.channels, 2 * shape.channels, 1)
        self.head = FCNHead(2 * shape.channels, classes)

    def logits(self, features: Features, batch: SegmentationBatch) -> Tensor:
        """Logits at the finest level, float [B, C, h, w]."""
        levels = list(features.pyramid.values())
        size = levels[0].shape[-2:]
        total = levels[0]
        for level in levels[1:]:
            total = total + F.interpolate(level, size, mode="bilinear", align_corners=False)
        return self.head(self.expand(total))
