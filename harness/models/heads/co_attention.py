"""VQA head: words and image positions attend to each other, with the placeholder tokens between them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.data.batches import VqaBatch
from harness.models.attention import Attention, FeedForward
from harness.models.config import CoAttentionConfig
from harness.models.features import Features, FeatureShape
from harness.models.heads.vqa import VqaHead, answer_classifier, position_tokens
from harness.models.placeholders import TokenStream
from harness.models.text import Words


class CoAttention(nn.Module):
    """One layer: each stream attends to itself and to the other (LXMERT's cross-modality layer; Tan 2019 §2.2).

    Args:
        width: Token width.
        heads: Attention heads.
        looking: Whether there is an image stream.
    """

    def __init__(self, width: int, heads: int, looking: bool) -> None:
        super().__init__()
        self.words_to_words = Attention(width, heads)
        self.words_forward = FeedForward(width)
        if looking:
            self.words_to_image = Attention(width, heads)
            self.image_to_words = Attention(width, heads)
            self.image_to_image = Attention(width, heads)
            self.image_forward = FeedForward(width)

    def forward(self, words: Tensor, padding: Tensor, image: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Update both streams.

        Args:
            words: float [Q, L, width].
            padding: bool [Q, L], True where a question has ended.
            image: float [Q, N, width], or None.
        """
        if image is None:
            return self.words_forward(self.words_to_words(words, words, padding)), None
        seen = self.words_to_image(words, image)
        told = self.image_to_words(image, words, padding)
        words = self.words_forward(self.words_to_words(seen, seen, padding))
        return words, self.image_forward(self.image_to_image(told, told))


class CoAttentionHead(VqaHead):
    """VQA: words and image positions attend to each other (Yu 2019, Tan 2019), then an answer classifier.

    Before every layer both streams go through exchange sites, words first: the placeholder tokens carry what was read
    from the words into the image stream. In the end each stream is pooled by learned attention and the two are added,
    as MCAN does (Yu 2019 §4.4).

    Args:
        config: Options.
        shape: Feature sizes.
        answers: A, size of the answer vocabulary.
        text_width: Width of the question encoder's tokens.
        exchanging: Whether placeholder tokens are exchanged.
    """

    def __init__(
        self, config: CoAttentionConfig, shape: FeatureShape, answers: int, text_width: int, exchanging: bool
    ) -> None:
        super().__init__()
        self.stride = config.stride
        looking = not config.question_only
        self.from_text = nn.Linear(text_width, config.width)
        self.layers = nn.ModuleList(CoAttention(config.width, config.heads, looking) for _ in range(config.layers))
        self.pool_words = Pool(config.width)
        if looking:
            self.from_image = nn.Conv2d(shape.channels, config.width, 1)
            self.pool_image = Pool(config.width)
        self.classifier = answer_classifier(config.width, answers, config.dropout)
        streams = ("question", "image") if looking else ("question",)
        names = [f"vqa.{stream}.{layer}" for layer in range(config.layers) for stream in streams]
        self.sites = dict.fromkeys(names if exchanging else (), config.width)

    def positions(self, features: Features) -> Tensor:
        """Image positions, float [B, N, width]."""
        return position_tokens(self.from_image(features.pyramid[self.stride]))

    def logits(self, image: Tensor | None, batch: VqaBatch, words: Words, stream: TokenStream | None) -> Tensor:
        """Logits of the answers, float [Q, A]."""
        question = self.from_text(words.tokens)
        positions = image[batch.image_index] if image is not None else None
        for number, layer in enumerate(self.layers):
            if stream is not None and self.sites:
                question = stream.exchange(f"vqa.question.{number}", question, words.padding)
                if positions is not None:
                    positions = stream.exchange(f"vqa.image.{number}", positions)
            question, positions = layer(question, words.padding, positions)
        answer = self.pool_words(question, words.padding)
        if positions is not None:
            answer = answer + self.pool_image(positions)
        return self.classifier(answer)


class Pool(nn.Module):
    """Tokens to one vector, weighed by a small network of each token (attended reduction; Yu 2019 §4.4)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))

    def forward(self, tokens: Tensor, padding: Tensor | None = None) -> Tensor:
        """Map float [Q, N, width] to [Q, width]; positions where `padding` is True have no weight."""
        scores = self.score(tokens).squeeze(-1)
        if padding is not None:
            scores = scores.masked_fill(padding, float("-inf"))
        return torch.einsum("qn,qnw->qw", scores.softmax(dim=1), tokens)
