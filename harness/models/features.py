"""What the shared part of a network hands to the heads."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from harness.data.batches import Batch
from harness.models.placeholders import TokenStream


@dataclass(frozen=True)
class Features:
    """Features of one task's batch.

    Attributes:
        pyramid: float [B, channels, H/stride, W/stride] by stride, finest first; empty where only `pooled` is read.
        pooled: float [B, F].
        stream: The placeholder tokens after the backbone, or None for the plain network.
        maps: The backbone's own maps by stride, for what reads them instead of the pyramid; empty where nothing does.
    """

    pyramid: dict[int, Tensor]
    pooled: Tensor
    stream: TokenStream | None
    maps: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class FeatureShape:
    """Sizes that a head is built for.

    Attributes:
        strides: Of the pyramid, finest first.
        channels: Of every pyramid level.
        pooled_width: F, width of the pooled feature.
    """

    strides: tuple[int, ...]
    channels: int
    pooled_width: int


def pooled(level: Tensor, padding: Tensor | None = None) -> Tensor:
    """Mean over the positions of a map that are no padding.

    Args:
        level: float [B, C, h, w].
        padding: bool [B, h, w], True at padding, or None.

    Returns:
        float [B, C].
    """
    if padding is None:
        return level.mean((2, 3))
    inside = (~padding)[:, None].to(level.dtype)
    return (level * inside).sum((2, 3)) / inside.sum((2, 3)).clamp(min=1)


def padding_of(level: Tensor, batch: Batch) -> Tensor | None:
    """Where a map of a batch is padding.

    Args:
        level: float [R, C, h, w]; R rows are images, or questions about them (one place each, which is none).
        batch: Tells how large each image is in it.

    Returns:
        bool [R, h, w], or None where nothing is.
    """
    if batch.contents is None or len(level) != len(batch.ids):
        return None
    height, width = batch.images.shape[-2:]
    return padding_mask(batch.contents, (height, width), (level.shape[2], level.shape[3]))


def padding_mask(contents: Tensor, image_size: tuple[int, int], map_size: tuple[int, int]) -> Tensor:
    """Which positions of a feature map lie in the padding of their image.

    Args:
        contents: int64 [B, 2], height and width of each image without its padding.
        image_size: Height and width of the padded images.
        map_size: Height and width of the feature map.

    Returns:
        bool [B, h, w], True where a position begins beyond the content.
    """
    masks = [
        torch.arange(cells, device=contents.device) * (side / cells) >= contents[:, axis, None]
        for axis, (side, cells) in enumerate(zip(image_size, map_size, strict=True))
    ]
    return masks[0][:, :, None] | masks[1][:, None, :]
