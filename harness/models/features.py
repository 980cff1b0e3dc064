"""What the shared part of a network hands to the heads."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from harness.models.placeholders import TokenStream


@dataclass(frozen=True)
class Features:
    """Features of one task's batch.

    Attributes:
        pyramid: float [B, channels, H/stride, W/stride] by stride, finest first; empty where only `pooled` is read.
        pooled: float [B, F].
        stream: The placeholder tokens after the backbone, or None for the plain network.
    """

    pyramid: dict[int, Tensor]
    pooled: Tensor
    stream: TokenStream | None


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
