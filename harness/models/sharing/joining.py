"""Features of several trunks made one: concatenated and projected, or summed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from harness.models.features import Features, FeatureShape


class Projection(nn.Module):
    """A 1x1 convolution of concatenated features, of maps or of vectors.

    It starts as a weighted sum of its inputs, so that features begin with the size that heads are made for.

    Args:
        widths: Channels of each input; the result has as many as the first.
        start: The weight that each input starts with; other than 0 for inputs as wide as the first only.
    """

    def __init__(self, widths: Sequence[int], start: Sequence[float]) -> None:
        super().__init__()
        self.linear = nn.Linear(sum(widths), widths[0])
        parts = [weight * torch.eye(widths[0], width) for width, weight in zip(widths, start, strict=True)]
        with torch.no_grad():
            self.linear.weight.copy_(torch.cat(parts, 1))
            self.linear.bias.zero_()

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Join tensors float [B, C_i, h, w] or [B, C_i] to one with the first one's shape."""
        joined = torch.cat(list(inputs), 1)
        if joined.dim() == 2:
            found: Tensor = self.linear(joined)
            return found
        return nn.functional.conv2d(joined, self.linear.weight[:, :, None, None], self.linear.bias)


class FeatureProjection(nn.Module):
    """A `Projection` for everything that a task's head reads.

    Args:
        shape: Sizes of the task's own features, which are the first input.
        pooled: Whether the head reads the pooled feature, and not the pyramid.
        others: Widths of the other inputs' maps, or vectors.
        start: As for `Projection`.
    """

    def __init__(self, shape: FeatureShape, pooled: bool, others: Sequence[int], start: Sequence[float]) -> None:
        super().__init__()
        self.pooled = Projection([shape.pooled_width, *others], start) if pooled else None
        strides = () if pooled else shape.strides
        self.levels = nn.ModuleDict({str(s): Projection([shape.channels, *others], start) for s in strides})

    def forward(self, inputs: Sequence[Features]) -> Features:
        """Join features of the same images; tokens are those of the first."""
        first = inputs[0]
        pooled = first.pooled if self.pooled is None else self.pooled([one.pooled for one in inputs])
        pyramid = {
            stride: self.levels[str(stride)]([one.pyramid[stride] for one in inputs]) for stride in first.pyramid
        }
        return Features(pyramid, pooled, first.stream)


def summed(one: Features, other: Features) -> Features:
    """The sum of two features of the same images; tokens are those of the first."""
    pyramid = {stride: level + other.pyramid[stride] for stride, level in one.pyramid.items()}
    return Features(pyramid, one.pooled + other.pooled, one.stream)
