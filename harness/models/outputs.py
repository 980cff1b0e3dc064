"""What heads say about features, as maps that other tasks can take."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.data.batches import Batch
from harness.models.features import Features


@torch.no_grad()
def probabilities(head: nn.Module, features: Features, batch: Batch) -> list[Tensor]:
    """A head's probabilities on any task's features, without a trace: in evaluation mode, without placeholder tokens.

    Args:
        head: Of a task whose `outputs` need nothing but features.
        features: They may be those of another task.
        batch: Tells the images' sizes.

    Returns:
        float [B, C, h, w], as many maps as the head gives, finest first. Softmax where one class at most is right at
        each place, sigmoid where any number can be.
    """
    with _evaluating(head):
        any_head: Any = head
        alone = Features(features.pyramid, features.pooled, None, features.maps)
        maps: tuple[Tensor, ...] = any_head.outputs(alone, batch)
        return [one.float().softmax(1) if any_head.exclusive else one.float().sigmoid() for one in maps]


def resized(maps: Sequence[Tensor], levels: Sequence[Tensor]) -> list[Tensor]:
    """For each level the map that is nearest to it in size, brought to its size.

    Larger maps are averaged over what becomes one position, smaller ones are interpolated.

    Args:
        maps: float [B, C, h, w].
        levels: float [B, C', h', w'].
    """
    found = []
    for level in levels:
        size = (level.shape[2], level.shape[3])
        nearest = min(maps, key=lambda one: abs(math.log(one[0, 0].numel() / level[0, 0].numel())))
        if nearest.shape[-2] > size[0] or nearest.shape[-1] > size[1]:
            nearest = F.adaptive_avg_pool2d(nearest, size)
        elif tuple(nearest.shape[-2:]) != size:
            nearest = F.interpolate(nearest, size, mode="bilinear", align_corners=False)
        found.append(nearest)
    return found


def chosen(features: Features, rows: Sequence[int]) -> Features:
    """Some samples' features, without placeholder tokens."""
    kept = list(rows)
    return Features(
        {stride: level[kept] for stride, level in features.pyramid.items()},
        features.pooled[kept],
        None,
        {stride: level[kept] for stride, level in features.maps.items()},
    )


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for the time of a block; then every part is in the mode again that it was in."""
    modes = [(one, one.training) for one in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for one, mode in modes:
            one.training = mode
