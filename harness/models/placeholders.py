"""Placeholder tokens: one parameter that every task and modality reads and writes at exchange sites."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from harness.models.attention import attend
from harness.models.config import PlaceholderConfig


class PlaceholderBank(nn.Module):
    """The tokens P, one float32 parameter [K, d] shared by all tasks, stages and modalities.

    Args:
        count: K > 0, number of tokens.
        width: d, width of a token.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(count, width))
        nn.init.normal_(self.tokens, std=0.02)

    def forward(self, batch: int) -> Tensor:
        """Copies of P that the samples of a batch start from: float [batch, K, d]."""
        return self.tokens.repeat(batch, 1, 1)


class ExchangeSite(nn.Module):
    """Tokens read features, then features read tokens.

    With U = LN(X) W_down and heads over width a:

        Z <- Z + W_r · MHA(query=Z, key=U, value=U)      (read)
        X <- X + W_up · MHA(query=U, key=Z, value=Z)     (write, W_up starts at 0)

    so that a fresh site returns X bit for bit. The read gives the tokens the sample's content; W_r must not start at
    zero as well, or neither would ever learn. Parameters: 2C(a+1) + 2d + 4ad.

    Args:
        channels: C, the feature width.
        width: d, the token width.
        attention_width: a, the width in which they attend.
        heads: Attention heads; divides a.
    """

    def __init__(self, channels: int, width: int, attention_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.feature_norm = nn.LayerNorm(channels)
        self.down = nn.Linear(channels, attention_width, bias=False)
        self.token_norm = nn.LayerNorm(width)
        self.read_query = nn.Linear(width, attention_width, bias=False)
        self.read_out = nn.Linear(attention_width, width, bias=False)
        self.write_key = nn.Linear(width, attention_width, bias=False)
        self.write_value = nn.Linear(width, attention_width, bias=False)
        self.up = nn.Linear(attention_width, channels, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, features: Tensor, tokens: Tensor, padding: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Exchange.

        Args:
            features: float [B, N, C].
            tokens: float [B, K, d].
            padding: bool [B, N], True where a feature is padding: it is not read (and may be written).

        Returns:
            Updated features and tokens, shapes as given.
        """
        low = self.down(self.feature_norm(features))
        query = self.read_query(self.token_norm(tokens))
        tokens = tokens + self.read_out(attend(query, low, low, self.heads, padding))
        current = self.token_norm(tokens)
        written = attend(low, self.write_key(current), self.write_value(current), self.heads)
        return features + self.up(written), tokens


class TokenStream:
    """The tokens Z of one batch on their way through the network. It lives for one forward pass.

    Args:
        sites: The exchange sites by name.
        tokens: float [B, K, d], the state that the samples start with.
    """

    def __init__(self, sites: Mapping[str, nn.Module], tokens: Tensor, visits: Counter[str] | None = None) -> None:
        self._sites = sites
        self.tokens = tokens
        self.visits: Counter[str] = visits if visits is not None else Counter()

    def exchange(self, site: str, features: Tensor, padding: Tensor | None = None) -> Tensor:
        """Exchange with features float [B, N, C] at a site; returns the updated features."""
        self.visits[site] += 1
        features, self.tokens = self._sites[_key(site)](features, self.tokens, padding)
        return features

    def rows(self, rows: slice | Tensor) -> TokenStream:
        """The stream of some samples of the batch (a slice, or int64 [B'] indices that may repeat)."""
        return TokenStream(self._sites, self.tokens[rows], Counter(self.visits))

    def check(self, expected: Iterable[str]) -> None:
        """Assert that every expected site fired exactly once.

        A site that does not fire (hooks on a checkpointed stage, for one) would silently turn the model into its
        control.

        Raises:
            RuntimeError: A site was missed, or visited twice.
        """
        if self.visits != Counter(expected):
            wrong = sorted(set(self.visits) | set(expected))
            counts = ", ".join(f"{site} {self.visits[site]}x" for site in wrong)
            raise RuntimeError(f"placeholder exchange sites must fire exactly once per forward pass, but: {counts}")


class Placeholders(nn.Module):
    """The bank and all its exchange sites.

    Args:
        config: Sizes; count > 0.
        sites: Channels C of the features at each site, by site name.
    """

    def __init__(self, config: PlaceholderConfig, sites: Mapping[str, int]) -> None:
        super().__init__()
        self.bank = PlaceholderBank(config.count, config.width)
        self.sites = nn.ModuleDict(
            {
                _key(name): ExchangeSite(channels, config.width, config.attention_width, config.heads)
                for name, channels in sites.items()
            }
        )

    def begin(self, batch: int) -> TokenStream:
        """A fresh stream for `batch` samples."""
        return TokenStream(dict(self.sites.items()), self.bank(batch))


def _key(site: str) -> str:
    """Site names hold dots, module names must not."""
    return site.replace(".", "/")
