"""VQA head: co-attention between question words and image positions, then an answer classifier."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.data.batches import PADDING, VqaBatch
from harness.models.attention import Attention, FeedForward, position_embedding
from harness.models.config import VqaHeadConfig
from harness.models.features import Features, FeatureShape
from harness.models.placeholders import TokenStream


class VqaHead(nn.Module):
    """Binary cross-entropy of each answer against the accuracy it would get (Teney 2018 §3.7).

    Each layer lets image positions read the question and the question read the image positions (co-attention; Lu
    2016, Yu 2019), then both streams exchange with the placeholder tokens once, and the mean of each stream is
    classified: the mean over image positions is what counting needs, which one attention read cannot give.

    Args:
        config: Options.
        shape: Feature sizes.
        answers: A, size of the answer vocabulary.
        text_width: Width of the question encoder's tokens.
    """

    SITES = ("vqa.question", "vqa.image")

    def __init__(self, config: VqaHeadConfig, shape: FeatureShape, answers: int, text_width: int) -> None:
        super().__init__()
        self.stride = config.stride
        self.width = config.width
        self.question_only = config.question_only
        self.from_text = nn.Linear(text_width, config.width)
        streams = 1
        if not self.question_only:
            streams = 2
            self.from_image = nn.Conv2d(shape.channels, config.width, 1)
            self.image_reads = _modules(lambda: Attention(config.width, config.heads), config.layers)
            self.question_reads = _modules(lambda: Attention(config.width, config.heads), config.layers)
            self.image_mixes = _modules(lambda: FeedForward(config.width), config.layers)
        self.question_mixes = _modules(lambda: FeedForward(config.width), config.layers)
        self.classifier = nn.Sequential(
            nn.LayerNorm(streams * config.width),
            nn.Linear(streams * config.width, 2 * config.width),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(2 * config.width, answers),
        )

    def sites(self) -> dict[str, int]:
        """Widths of the features at this head's exchange sites."""
        return dict.fromkeys(self.SITES[:1] if self.question_only else self.SITES, self.width)

    def loss(self, features: Features | None, batch: VqaBatch, words: Tensor, stream: TokenStream | None) -> Tensor:
        """Cross-entropy summed over answers, mean over questions, a scalar."""
        logits = self.predict(features, batch, words, stream)
        return F.binary_cross_entropy_with_logits(logits, batch.targets, reduction="sum") / len(logits)

    def predict(self, features: Features | None, batch: VqaBatch, words: Tensor, stream: TokenStream | None) -> Tensor:
        """Logits of the answers.

        Args:
            features: Of the B images; None for question-only.
            batch: The questions.
            words: float [Q, L, text_width], encoded questions.
            stream: Placeholder tokens of the Q questions, or None.

        Returns:
            float [Q, A].
        """
        padding = batch.words == PADDING
        question = self.from_text(words)
        image = None if features is None or self.question_only else self._positions(features)[batch.image_index]
        for layer, mix in enumerate(self.question_mixes):
            if image is not None:
                image = self.image_mixes[layer](self.image_reads[layer](image, question, padding))
                question = self.question_reads[layer](question, image)
            question = mix(question)
        if stream is not None:
            question = stream.exchange("vqa.question", question, padding)
            if image is not None:
                image = stream.exchange("vqa.image", image)
        kept = (~padding).to(question.dtype).unsqueeze(-1)
        pooled = (question * kept).sum(1) / kept.sum(1).clamp(min=1)
        if image is not None:
            pooled = torch.cat([pooled, image.mean(1)], dim=-1)
        return self.classifier(pooled)

    def _positions(self, features: Features) -> Tensor:
        projected = self.from_image(features.pyramid[self.stride])
        height, width = projected.shape[-2:]
        tokens = projected.flatten(2).transpose(1, 2)
        return tokens + position_embedding(height, width, self.width, tokens)


def _modules(build: object, count: int) -> nn.ModuleList:
    assert callable(build)
    return nn.ModuleList(build() for _ in range(count))
