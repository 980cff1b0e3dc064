"""Question encoder: a small transformer over words, with an exchange site for the placeholder tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.data.batches import PADDING, RESERVED
from harness.models.attention import Attention, FeedForward
from harness.models.config import TextConfig
from harness.models.placeholders import TokenStream


class TextEncoder(nn.Module):
    """Words to tokens. Bidirectional: it encodes questions, so nothing needs to be causal.

    Args:
        config: Sizes.
        words: Size of the vocabulary, without padding and the unknown word.
    """

    SITE = "text"

    def __init__(self, config: TextConfig, words: int) -> None:
        super().__init__()
        self.width = config.width
        self.words = nn.Embedding(words + RESERVED, config.width, padding_idx=PADDING)
        self.positions = nn.Parameter(torch.empty(config.max_words, config.width))
        # Words keep unit variance: a smaller one drowns in what the first residual branch adds, and every word of a
        # question looks alike.
        nn.init.normal_(self.positions, std=0.1)
        self.attention = nn.ModuleList(Attention(config.width, config.heads) for _ in range(config.layers))
        self.feed_forward = nn.ModuleList(FeedForward(config.width) for _ in range(config.layers))

    def forward(self, words: Tensor, stream: TokenStream | None = None) -> Tensor:
        """Encode questions.

        Args:
            words: int64 [Q, L]; 0 is padding.
            stream: Placeholder tokens of these questions' samples, or None.

        Returns:
            float [Q, L, width].
        """
        padding = words == PADDING
        tokens = self.words(words) + self.positions[: words.shape[1]]
        for attention, feed_forward in zip(self.attention, self.feed_forward, strict=True):
            tokens = feed_forward(attention(tokens, tokens, padding))
        if stream is not None:
            tokens = stream.exchange(self.SITE, tokens, padding)
        return tokens
