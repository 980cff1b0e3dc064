"""Where on the shared trunk the heads of hard sharing sit: one after another, or at stages of their own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from harness.models.features import Features, FeatureShape


class SerialTaps(nn.Module):
    """A chain of blocks, one per task: the k-th task reads what its own block makes of the block before.

    The first reads a block on the trunk; a later task's loss also trains the blocks of the tasks before it (the
    cascade of Hashimoto et al. 2017, "A Joint Many-Task Model", arXiv:1611.01587, with features handed on instead of
    predictions). Blocks start as the identity, so at first every task reads the trunk itself.

    Args:
        shape: Sizes of the trunk's features.
        tasks: In the order of the chain.
        pooled_only: Those of them whose heads read the pooled feature only.
    """

    def __init__(self, shape: FeatureShape, tasks: Sequence[str], pooled_only: Collection[str]) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict()
        for place, task in enumerate(tasks):
            reading = tasks[place:]  # through this block
            self.blocks[task] = TaskBlock(
                shape.channels if set(reading) - set(pooled_only) else 0,
                shape.pooled_width if set(reading) & set(pooled_only) else 0,
            )

    def forward(self, features: Features, task: str) -> Features:
        """What a task's head reads instead of the trunk's features."""
        for name, block in self.blocks.items():
            features = block(features)
            if name == task:
                break
        return features


class TaskBlock(nn.Module):
    """x + g(ReLU(f(x))) on pyramid levels (f a 3x3, g a 1x1 convolution) and on the pooled feature; g starts at 0.

    Args:
        channels: Of the levels; 0 for no block on them.
        width: Of the pooled feature; 0 for no block on it.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.maps: nn.Sequential | None = None
        self.pooled: nn.Sequential | None = None
        if channels:
            last: nn.Module = nn.Conv2d(channels, channels, 1)
            self.maps = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), _zeroed(last))
        if width:
            last = nn.Linear(width, width)
            self.pooled = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), _zeroed(last))

    def forward(self, features: Features) -> Features:
        """Features of the same sizes."""
        pyramid, pooled = features.pyramid, features.pooled
        if self.maps is not None:
            pyramid = {stride: level + self.maps(level) for stride, level in pyramid.items()}
        if self.pooled is not None:
            pooled = pooled + self.pooled(pooled)
        return Features(pyramid, pooled, features.stream, features.maps)


class StageTap(nn.Module):
    """A task's features from the stages of the backbone down to a stride, and none deeper.

    Levels up to that stride come from a pyramid of its own over these stages; coarser ones are every second position of
    the one before (as RetinaNet's and Faster R-CNN's coarsest level is made); the pooled feature is the projected mean
    of the deepest stage. So the task's loss trains the early stages only (Søgaard & Goldberg 2016, "Deep multi-task
    learning with low level tasks supervised at lower layers").

    Args:
        shape: Sizes that heads want.
        channels: Of the backbone's maps, by stride.
        stride: Of the deepest stage that is read.
        pooled: Whether the head reads the pooled feature, and not the pyramid.
    """

    def __init__(self, shape: FeatureShape, channels: Mapping[int, int], stride: int, pooled: bool) -> None:
        super().__init__()
        self._strides, self._deepest = shape.strides, stride
        self.pooled = nn.Linear(channels[stride], shape.pooled_width) if pooled else None
        self.neck: FeaturePyramidNetwork | None = None
        if not pooled:
            self.neck = FeaturePyramidNetwork([channels[s] for s in shape.strides if s <= stride], shape.channels)

    def forward(self, features: Features) -> Features:
        """What the head reads instead of the trunk's features."""
        if self.pooled is not None:
            return Features({}, self.pooled(features.maps[self._deepest].mean((2, 3))), features.stream, features.maps)
        neck = cast(FeaturePyramidNetwork, self.neck)
        found: dict[str, Tensor] = neck({str(s): features.maps[s] for s in self._strides if s <= self._deepest})
        levels = {int(stride): level for stride, level in found.items()}
        last = levels[self._deepest]
        for stride in self._strides:
            if stride > self._deepest:
                last = F.max_pool2d(last, kernel_size=1, stride=2)
                levels[stride] = last
        return Features(levels, features.pooled, features.stream, features.maps)


def _zeroed(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
