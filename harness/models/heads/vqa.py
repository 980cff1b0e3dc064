"""VQA: what its heads share, and the default one: the question looks at image positions."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.data.batches import VqaBatch
from harness.models.attention import position_embedding
from harness.models.config import LookConfig
from harness.models.features import Features, FeatureShape
from harness.models.heads.head import Head
from harness.models.placeholders import TokenStream
from harness.models.text import Words


class Look(nn.Module):
    """A question looks at image positions and is updated by what it sees.

    Queries and keys are normalised, so attention is a cosine times a learned temperature. Each head reads twice: a
    softmax over positions answers "what is there", and independent sigmoids, which add up over positions, answer "how
    much of it is there" - a softmax cannot count. What is read is multiplied by a gate made from the question (Kim
    2017, MLB), because an answer depends on both jointly.

    Keys and values depend on the image alone, so they are computed once per image, not once per question.

    Args:
        width: Token width.
        heads: Attention heads.
    """

    TEMPERATURE = 12.0

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.gate = nn.Linear(width, width)
        self.temperature = nn.Parameter(torch.full((heads,), self.TEMPERATURE))
        self.threshold = nn.Parameter(torch.zeros(heads))
        self.mix = nn.Sequential(
            nn.LayerNorm(3 * width), nn.Linear(3 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, question: Tensor, image: Tensor, image_index: Tensor) -> Tensor:
        """Update questions.

        Args:
            question: float [Q, width].
            image: float [B, N, width].
            image_index: int64 [Q], the image of each question.

        Returns:
            float [Q, width].
        """
        normed = self.norm(question)
        query = F.normalize(self._split(self.query(normed)), dim=-1)
        key = F.normalize(self._split(self.key(image)), dim=-1)[image_index]
        value = self._split(self.value(image))[image_index]
        scores = torch.einsum("qhd,qnhd->qnh", query, key) * self.temperature
        seen = torch.einsum("qnh,qnhd->qhd", scores.softmax(dim=1), value).flatten(1)
        amount = torch.sigmoid(scores - self.threshold)
        # What is asked about rarely fills more than a quarter of the image: 4 brings the mean to the size of `seen`.
        counted = 4 * torch.einsum("qnh,qnhd->qhd", amount, value).flatten(1) / image.shape[1]
        return question + self.mix(torch.cat([normed, seen * self.gate(normed), counted], dim=-1))

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.reshape(*tokens.shape[:-1], self.heads, -1)


class VqaHead(Head, ABC):
    """Binary cross-entropy of each answer against the accuracy it would get (Teney 2018 §3.7).

    Attributes:
        sites: Widths of the features at this head's exchange sites, by name.
    """

    sites: dict[str, int]
    exclusive = False

    @abstractmethod
    def positions(self, features: Features) -> Tensor:
        """Image positions as tokens, float [B, N, width], computed once per image."""

    @abstractmethod
    def logits(self, image: Tensor | None, batch: VqaBatch, words: Words, stream: TokenStream | None) -> Tensor:
        """Logits of the answers, float [Q, A], without what placeholder tokens add to them."""

    def loss(self, image: Tensor | None, batch: VqaBatch, words: Words, stream: TokenStream | None) -> Tensor:
        """Cross-entropy summed over answers, mean over questions, a scalar."""
        logits = self.predict(image, batch, words, stream)
        self.note(lambda: batch.targets.gather(1, logits.argmax(1, keepdim=True)).mean())
        return F.binary_cross_entropy_with_logits(logits, batch.targets, reduction="sum") / len(logits)

    def count(self, batch: VqaBatch) -> int:
        """The questions, over which `loss` is a mean."""
        return len(batch.words)

    def predict(self, image: Tensor | None, batch: VqaBatch, words: Words, stream: TokenStream | None) -> Tensor:
        """Logits of the answers.

        Args:
            image: float [B, N, width] from `positions`; None for question-only.
            batch: The Q questions.
            words: The questions, encoded.
            stream: Placeholder tokens of the questions, or None.

        Returns:
            float [Q, A].
        """
        logits = self.logits(image, batch, words, stream)
        return stream.shift(logits) if stream is not None else logits

    def outputs(
        self, image: Tensor | None, batch: VqaBatch, words: Words, stream: TokenStream | None
    ) -> tuple[Tensor, ...]:
        """The logits of the answers, as a map of one place per question: float [Q, A, 1, 1]."""
        return (self.predict(image, batch, words, stream)[..., None, None],)


class LookHead(VqaHead):
    """VQA: the question, as one vector, looks at image positions, then an answer classifier.

    Args:
        config: Options.
        shape: Feature sizes.
        answers: A, size of the answer vocabulary.
        text_width: Width of the question encoder's tokens.
        exchanging: Whether placeholder tokens are exchanged.
    """

    IMAGE_SITE, QUESTION_SITE = "vqa.image", "vqa.question"

    def __init__(
        self, config: LookConfig, shape: FeatureShape, answers: int, text_width: int, exchanging: bool
    ) -> None:
        super().__init__()
        self.stride = config.stride
        self.width = config.width
        self.from_text = nn.Linear(text_width, config.width)
        self.looks = nn.ModuleList()
        if not config.question_only:
            self.from_image = nn.Conv2d(shape.channels, config.width, 1)
            self.image_norm = nn.LayerNorm(config.width)
            self.looks.extend(Look(config.width, config.heads) for _ in range(config.layers))
        self.classifier = answer_classifier(config.width, answers, config.dropout)
        names = ((self.IMAGE_SITE,) if self.looks else ()) + (self.QUESTION_SITE,)
        self.sites = dict.fromkeys(names if exchanging else (), config.width)

    def positions(self, features: Features) -> Tensor:
        """Image positions to look at, float [B, N, width], after exchanging with the images' placeholder tokens."""
        tokens = position_tokens(self.from_image(features.pyramid[self.stride]))
        if features.stream is not None and self.sites:
            tokens = features.stream.exchange(self.IMAGE_SITE, tokens)
        return self.image_norm(tokens)

    def logits(self, image: Tensor | None, batch: VqaBatch, words: Words, stream: TokenStream | None) -> Tensor:
        """Logits of the answers, float [Q, A]."""
        kept = (~words.padding).to(words.tokens.dtype).unsqueeze(-1)
        question = (self.from_text(words.tokens) * kept).sum(1) / kept.sum(1)
        for look in self.looks:
            assert image is not None
            question = look(question, image, batch.image_index)
        if stream is not None and self.sites:
            question = stream.exchange(self.QUESTION_SITE, question.unsqueeze(1)).squeeze(1)
        return self.classifier(question)


def position_tokens(projected: Tensor) -> Tensor:
    """A map float [B, width, h, w] as tokens that know their place, float [B, h * w, width]."""
    width, rows, columns = projected.shape[1:]
    tokens = projected.flatten(2).transpose(1, 2)
    return tokens + position_embedding(rows, columns, width, tokens)


def answer_classifier(width: int, answers: int, dropout: float) -> nn.Sequential:
    """Two layers from a question's vector to the answers' logits."""
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, 2 * width),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(2 * width, answers),
    )
