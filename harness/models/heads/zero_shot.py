"""Classification head of CLIP models: cosine to the text embeddings of the class names."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from harness.data.batches import ClassificationBatch
from harness.models.clip_text import ClassTexts
from harness.models.config import ZeroShotConfig
from harness.models.features import Features
from harness.models.heads.head import Head


class ZeroShotHead(Head):
    """Classification: cosine of image and class-name embeddings (CLIP; Radford 2021), cross-entropy.

    It has no weights of its own: the image embedding is the backbone's pooled feature, the class embeddings are those
    of the same model's text tower. Trained like any other head, it fine-tunes the towers.

    Args:
        config: Options.
    """

    def __init__(self, config: ZeroShotConfig) -> None:
        super().__init__()
        self.label_smoothing = config.label_smoothing

    def loss(self, features: Features, batch: ClassificationBatch, texts: ClassTexts) -> Tensor:
        """Mean cross-entropy, a scalar."""
        logits = self.predict(features, batch, texts)
        self.note(lambda: (logits.argmax(1) == batch.labels).float().mean())
        return F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)

    def count(self, batch: ClassificationBatch) -> int:
        """The images, over which `loss` is a mean."""
        return len(batch.labels)

    def predict(self, features: Features, batch: ClassificationBatch, texts: ClassTexts) -> Tensor:
        """Logits, float [B, C]."""
        logits = texts.scale * F.normalize(features.pooled, dim=-1) @ texts.embeddings.T + texts.bias
        return features.stream.shift(logits) if features.stream is not None else logits

    def outputs(self, features: Features, batch: ClassificationBatch, texts: ClassTexts) -> tuple[Tensor, ...]:
        """The logits, as a map of one place: float [B, C, 1, 1]."""
        return (self.predict(features, batch, texts)[..., None, None],)
