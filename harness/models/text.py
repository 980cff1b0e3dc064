"""The question encoder of our own: a small transformer over words."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.data.batches import PADDING, RESERVED, VqaBatch
from harness.models.attention import Attention, FeedForward
from harness.models.config import OwnTextConfig, PlaceholderConfig
from harness.models.placeholders import TokenStream


@dataclass(frozen=True)
class Words:
    """Encoded questions.

    Attributes:
        tokens: float [Q, L, width].
        padding: bool [Q, L], True where a question has ended.
    """

    tokens: Tensor
    padding: Tensor


class TextEncoder(nn.Module):
    """Words to tokens. Bidirectional: it encodes questions, so nothing needs to be causal.

    Placeholder tokens are exchanged after the last layer, or inserted behind the words (into the first layer's input,
    or into every layer's) and taken out again.

    Args:
        config: Sizes.
        words: Size of the vocabulary, without padding and the unknown word.
        placeholders: Says how tokens meet words.
    """

    def __init__(self, config: OwnTextConfig, words: int, placeholders: PlaceholderConfig) -> None:
        super().__init__()
        self.width = config.width
        self.words = nn.Embedding(words + RESERVED, config.width, padding_idx=PADDING)
        self.positions = nn.Parameter(torch.empty(config.max_words, config.width))
        # Words keep unit variance: a smaller one drowns in what the first residual branch adds, and every word of a
        # question looks alike.
        nn.init.normal_(self.positions, std=0.1)
        self.attention = nn.ModuleList(Attention(config.width, config.heads) for _ in range(config.layers))
        self.feed_forward = nn.ModuleList(FeedForward(config.width) for _ in range(config.layers))
        self._insertions = insertions(placeholders, config.layers)
        self.inserts = len(self._insertions)  # at how many layers tokens are inserted
        self._masked = placeholders.masked
        self._exchange = "text" if placeholders.way == "exchange" else None
        names = [self._exchange] if self._exchange else self._insertions
        self.sites: dict[str, int] = dict.fromkeys(names, config.width)

    @property
    def blocks(self) -> list[nn.Module]:
        """What attends, layer by layer."""
        return list(self.attention)

    def forward(self, batch: VqaBatch, stream: TokenStream | None = None) -> Words:
        """Encode questions.

        Args:
            batch: The questions.
            stream: Placeholder tokens of these questions' samples, or None.
        """
        padding = batch.words == PADDING
        length = padding.shape[1]
        tokens = self.words(batch.words) + self.positions[:length]
        reach = padding
        for number, (attention, feed_forward) in enumerate(zip(self.attention, self.feed_forward, strict=True)):
            if stream is not None and number < len(self._insertions):
                tokens = tokens[:, :length]
                inserted = stream.prefix(self._insertions[number], tokens, padding)
                tokens = torch.cat([tokens, inserted], dim=1)
                reach = F.pad(padding, (0, inserted.shape[1]), value=self._masked)
            tokens = feed_forward(attention(tokens, tokens, reach))
        tokens = tokens[:, :length]
        if stream is not None and self._exchange is not None:
            tokens = stream.exchange(self._exchange, tokens, padding)
        return Words(tokens, padding)


def insertions(placeholders: PlaceholderConfig, layers: int) -> list[str]:
    """Site names of the text layers, from the first on, at whose inputs tokens are inserted."""
    if placeholders.way != "insert":
        return []
    return [f"text.{layer}" for layer in range(layers if placeholders.mechanism == "prefix_deep" else 1)]
