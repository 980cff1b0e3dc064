"""Learned positions for other image sizes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resampled(positions: Tensor, known: tuple[int, int], wanted: tuple[int, int], prefix: int) -> Tensor:
    """Position embeddings for a grid of another size, by bicubic interpolation as timm and open_clip do it.

    Args:
        positions: float [prefix + h * w, C].
        known: h and w that they were learned for.
        wanted: h' and w'.
        prefix: How many of them (class token) have no place in the grid and stay as they are.

    Returns:
        float [prefix + h' * w', C]; the very same tensor where the size is the same.
    """
    if known == wanted:
        return positions
    own, grid = positions[:prefix], positions[prefix:]
    image = grid.T.unflatten(1, known)[None].float()
    image = F.interpolate(image, size=wanted, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([own, image[0].flatten(1).T.to(positions.dtype)])
