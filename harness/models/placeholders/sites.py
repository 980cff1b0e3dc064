"""What happens where tokens meet features: they are exchanged, inserted, or shift logits."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from harness.models.attention import attend

RANK = 32


class ExchangeSite(nn.Module):
    """Tokens read features, then features read tokens.

    With U = LN(X) W_down and heads over width a:

        Z <- Z + W_r · MHA(query=Z, key=U, value=U)      (read)
        X <- X + W_up · MHA(query=U, key=Z, value=Z)     (write, W_up starts at 0)

    so that a fresh site returns X bit for bit. The read gives the tokens the sample's content; W_r must not start at
    zero as well, or neither would ever learn. Parameters: 2C(a+1) + 2d + 4ad; without read 2ad fewer, without write
    aC + 2ad fewer.

    Args:
        channels: C, the feature width.
        width: d, the token width.
        attention_width: a, the width in which they attend.
        heads: Attention heads; divides a.
        read: Whether tokens read. Without it they go on as they came.
        write: Whether features read tokens. Without it they go on as they came. What is left has the same random
            start as with both.

    Attributes:
        interaction: What tokens make of what they have read, if anything; see `SecondOrder`.
    """

    def __init__(
        self, channels: int, width: int, attention_width: int, heads: int, read: bool = True, write: bool = True
    ) -> None:
        super().__init__()
        self.heads = heads
        self.reads, self.writes = read, write
        self.interaction: SecondOrder | None = None
        self.feature_norm = nn.LayerNorm(channels)
        self.down = nn.Linear(channels, attention_width, bias=False)
        self.token_norm = nn.LayerNorm(width)
        self.read_query = nn.Linear(width, attention_width, bias=False)
        self.read_out = nn.Linear(attention_width, width, bias=False)
        self.write_key = nn.Linear(width, attention_width, bias=False)
        self.write_value = nn.Linear(width, attention_width, bias=False)
        self.up = nn.Linear(attention_width, channels, bias=False)
        nn.init.zeros_(self.up.weight)
        if not read:
            del self.read_query, self.read_out
        if not write:
            del self.write_key, self.write_value, self.up

    def forward(
        self,
        features: Tensor,
        tokens: Tensor,
        padding: Tensor | None = None,
        edit: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Exchange.

        Args:
            features: float [B, N, C].
            tokens: float [B, K, d].
            padding: bool [B, N], True where a feature is padding: it is not read (and may be written).
            edit: Is given the tokens between reading and writing; what it returns is written and carried on.

        Returns:
            Updated features and tokens, shapes as given.
        """
        low = self.down(self.feature_norm(features))
        if self.reads:
            query = self.read_query(self.token_norm(tokens))
            tokens = tokens + self.read_out(attend(query, low, low, self.heads, padding))
            if self.interaction is not None:
                tokens = self.interaction(tokens)
        if edit is not None:
            tokens = edit(tokens)
        if not self.writes:
            return features, tokens
        current = self.token_norm(tokens)
        written = attend(low, self.write_key(current), self.write_value(current), self.heads)
        return features + self.up(written), tokens


class SecondOrder(nn.Module):
    """Tokens of second order: Z + W_o [(W_1 Z) * (W_2 z̄)], with z̄ the mean token and W_o = 0 at the start.

    A product of two linear maps of rank r, as in low-rank bilinear pooling (Kim 2017, eq. 2), so that what a token
    becomes can depend on what all of them have read. Parameters: 3rd.

    Args:
        width: d, the token width.
        rank: r.
    """

    def __init__(self, width: int, rank: int = RANK) -> None:
        super().__init__()
        self.each = nn.Linear(width, rank, bias=False)
        self.mean = nn.Linear(width, rank, bias=False)
        self.out = nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map float [B, K, d] to the same shape."""
        product: Tensor = self.each(tokens) * self.mean(tokens.mean(1, keepdim=True))
        return tokens + self.out(product)


class Insertion(nn.Linear):
    """Tokens projected to the width of a transformer's embedding, where they are inserted (VPT; Jia 2022)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(width, channels)


class LogitShift(nn.Linear):
    """The mean token projected to a vector of the logits' size; 0 at first.

    On a linear head it is a second bias: nothing should come of it.
    """

    def __init__(self, outputs: int, width: int) -> None:
        super().__init__(width, outputs, bias=False)
        nn.init.zeros_(self.weight)
