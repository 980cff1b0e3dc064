"""Placeholder tokens as a border of pixels: how they enter a network that reads no sequence of tokens."""

from __future__ import annotations

import torch
from torch import Tensor

BORDER = 8  # pixels (ours)
WIDTH = 3 * BORDER  # numbers of one token: the colours of a strip that runs from the edge inwards


def add_border(images: Tensor, tokens: Tensor) -> Tensor:
    """Add tokens to the outermost pixels (a learned pixel border; Bahng 2022).

    Each token is a strip of `BORDER` pixels from the edge inwards. The K strips are spread evenly along the four sides,
    corner to corner and clockwise, and between two of them the border is interpolated linearly, so that a border
    suits every image size.

    Args:
        images: float [B, 3, H, W], normalised.
        tokens: float [B, K, `WIDTH`].

    Returns:
        float [B, 3, H, W].
    """
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device)[:, None].expand(height, width)
    columns = torch.arange(width, device=images.device).expand(height, width)
    down, right = height - 1 - rows, width - 1 - columns
    # Distance to the top, right, bottom and left edge; a corner belongs to the nearer one, its diagonal to the former.
    distances = torch.stack([rows, right, down, columns])
    ranked = (4 * distances + torch.arange(4, device=images.device)[:, None, None]).amin(0)
    depth, side = ranked // 4, ranked % 4
    clockwise = torch.stack([columns, width + rows, width + height + right, 2 * width + height + down])
    place = clockwise.gather(0, side[None])[0]
    ring = (depth < BORDER).flatten().nonzero()[:, 0]
    strips = _along(tokens, 2 * (width + height)).unflatten(-1, (3, BORDER))  # [B, perimeter, 3, BORDER]
    colours = strips[:, place.flatten()[ring], :, depth.flatten()[ring]]  # [pixels, B, 3]: indices come first
    return images.flatten(2).index_add(2, ring, colours.permute(1, 2, 0).to(images.dtype)).view_as(images)


def _along(tokens: Tensor, length: int) -> Tensor:
    """Linear interpolation of tokens [B, K, F] along a closed line of `length` pixels: [B, length, F]."""
    count = tokens.shape[1]
    positions = torch.arange(length, device=tokens.device) * (count / length)
    left = positions.floor().long() % count
    share = (positions - positions.floor()).to(tokens.dtype)[:, None]
    return tokens[:, left] * (1 - share) + tokens[:, (left + 1) % count] * share
