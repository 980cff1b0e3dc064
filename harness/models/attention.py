"""Attention and transformer blocks used by the text encoder, the VQA fusion and the exchange sites."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Residual branches start small and learn their size (LayerScale; Touvron 2021 §3): tokens first pass nearly unchanged.
# At full size, random mixtures hide from the layers above which word is which, and VQA stays at chance for long.
LAYER_SCALE = 0.1


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, padding: Tensor | None = None) -> Tensor:
    """Multi-head scaled dot-product attention, without projections (Vaswani 2017, eq. 1).

    Args:
        query: float [B, N, a].
        key: float [B, M, a].
        value: float [B, M, a].
        heads: Number of heads; divides a.
        padding: bool [B, M], True where a key is padding and must not be read.

    Returns:
        float [B, N, a].
    """
    batch, _, width = query.shape
    q, k, v = (x.reshape(batch, x.shape[1], heads, width // heads).transpose(1, 2) for x in (query, key, value))
    mask = None if padding is None else ~padding[:, None, None, :]
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return mixed.transpose(1, 2).reshape(batch, -1, width)


class Attention(nn.Module):
    """Pre-norm attention with normalised queries and keys (QK-norm; Henry 2020, Dehghani 2023 for ViT-22B).

    Plain dot products grow without bound at the learning rates that small networks are trained with; normalised ones
    do not, and question-conditioned attention learns where it otherwise stays at chance.

    Args:
        width: Token width.
        heads: Attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.context_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.query_norm = nn.LayerNorm(width // heads)
        self.key_norm = nn.LayerNorm(width // heads)
        self.out = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.full((width,), LAYER_SCALE))

    def forward(self, x: Tensor, context: Tensor, padding: Tensor | None = None) -> Tensor:
        """Add to `x` what it reads from `context`.

        Args:
            x: float [B, N, width].
            context: float [B, M, width].
            padding: bool [B, M], True at padding of `context`.

        Returns:
            float [B, N, width].
        """
        batch, _, width = x.shape
        source = self.context_norm(context)

        def split(tokens: Tensor) -> Tensor:
            return tokens.reshape(batch, tokens.shape[1], self.heads, -1)

        query = self.query_norm(split(self.query(self.norm(x)))).reshape(batch, -1, width)
        key = self.key_norm(split(self.key(source))).reshape(batch, -1, width)
        return x + self.scale * self.out(attend(query, key, self.value(source), self.heads, padding))


class FeedForward(nn.Module):
    """Pre-norm two-layer perceptron with a residual; hidden width twice the token width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.scale = nn.Parameter(torch.full((width,), LAYER_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        """Map float [B, N, width] to the same shape."""
        return x + self.scale * self.layers(x)


def position_embedding(height: int, width: int, channels: int, like: Tensor) -> Tensor:
    """Fixed 2-D sine-cosine position embedding (Vaswani 2017 §3.5, per axis), for maps of any size.

    Positions are fractions of the map, so that the same place has the same code at every resolution.

    Args:
        height: Rows.
        width: Columns.
        channels: A multiple of 4: a quarter each for sine and cosine of rows and of columns.
        like: Gives dtype and device.

    Returns:
        float [height * width, channels], row-major.
    """
    frequencies = torch.pi * 2 ** torch.linspace(0, 4, channels // 4, dtype=torch.float32, device=like.device)
    rows = (torch.arange(height, device=like.device) + 0.5) / height
    columns = (torch.arange(width, device=like.device) + 0.5) / width
    row_codes = (rows[:, None] * frequencies)[:, None, :].expand(height, width, -1)
    column_codes = (columns[:, None] * frequencies)[None, :, :].expand(height, width, -1)
    codes = torch.cat([row_codes.sin(), row_codes.cos(), column_codes.sin(), column_codes.cos()], dim=-1)
    return codes.reshape(height * width, channels).to(like.dtype)
