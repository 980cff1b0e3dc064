"""Classification head: a linear layer on the pooled feature."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from harness.data.batches import ClassificationBatch
from harness.models.config import LinearConfig
from harness.models.features import Features, FeatureShape
from harness.models.heads.head import Head


class LinearHead(Head):
    """Classification: a linear layer on the pooled feature, cross-entropy.

    Args:
        config: Options.
        shape: Feature sizes.
        classes: C.
    """

    def __init__(self, config: LinearConfig, shape: FeatureShape, classes: int) -> None:
        super().__init__()
        self.label_smoothing = config.label_smoothing
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(shape.pooled_width, classes)

    def loss(self, features: Features, batch: ClassificationBatch) -> Tensor:
        """Mean cross-entropy, a scalar."""
        logits = self.predict(features, batch)
        self.note(lambda: (logits.argmax(1) == batch.labels).float().mean())
        return F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)

    def count(self, batch: ClassificationBatch) -> int:
        """The images, over which `loss` is a mean."""
        return len(batch.labels)

    def predict(self, features: Features, batch: ClassificationBatch) -> Tensor:
        """Logits, float [B, C]."""
        logits = self.linear(self.dropout(features.pooled))
        return features.stream.shift(logits) if features.stream is not None else logits

    def outputs(self, features: Features, batch: ClassificationBatch) -> tuple[Tensor, ...]:
        """The logits, as a map of one place: float [B, C, 1, 1]."""
        return (self.predict(features, batch)[..., None, None],)
