"""Multi-task attention network (Liu 2019, "End-to-End Multi-Task Learning with Attention", arXiv:1803.10704 §3)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.data.batches import Batch
from harness.errors import HarnessError
from harness.models.backbones.base import Build
from harness.models.config import ModelConfig
from harness.models.features import Features
from harness.models.normalization import TaskStatistics
from harness.models.placeholders import Placeholders
from harness.models.sharing.hard import HardSharing
from harness.models.sharing.options import MtanConfig


class Mask(nn.Sequential):
    """A task's mask at one stage: a = h(g([p; b])), all 1x1 (eq. 2).

    Args:
        channels: C of the stage's map p.
        below: Channels of b, what came up from the stage below; 0 at the first.
        reduction: g has C / reduction channels.
        vector: Whether the map has one position. Each sample is then normalised by its own values: a batch norm over
            as few vectors as a batch has images would be unreliable, and fail with one image.
    """

    def __init__(self, channels: int, below: int, reduction: int, vector: bool = False) -> None:
        inner = max(1, channels // reduction)
        super().__init__(
            nn.Conv2d(channels + below, inner, 1, bias=False),
            _norm(inner, vector),
            nn.ReLU(),
            nn.Conv2d(inner, channels, 1, bias=False),
            _norm(channels, vector),
            nn.Sigmoid(),
        )


class AttentionStages(nn.Module):
    """Masks of all tasks at all stages.

    At stage j, a task attends â_j = h_j(g_j([p_j; f_{j-1}(â_{j-1})])) ⊙ p_j. g and h are the task's own; f, which all
    tasks share, is a 3x3 convolution with norm and ReLU that brings the features attended below to the channels of
    p_j, then max pooling to its size. The paper reads p from the middle of a stage and from its end; networks that are
    only known by the outputs of their stages give one map, which takes both places.

    The pooled feature is the last stage, a map with one position.

    Args:
        tasks: By name, whether a task reads the pooled feature.
        channels: Of the maps by stride, finest first.
        pooled: F, width of the pooled feature.
        reduction: See `Mask`.

    Raises:
        HarnessError: Maps cannot be pooled from one stride to the next.
    """

    def __init__(self, tasks: Mapping[str, bool], channels: Mapping[int, int], pooled: int, reduction: int) -> None:
        super().__init__()
        strides = list(channels)
        for low, high in pairwise(strides):
            if high % low:
                raise HarnessError(
                    f"model.neck.strides: mtan pools maps from stage to stage, but stride {high} is no multiple of"
                    f" {low}; leave one of them out"
                )
        self._factors = {high: high // low for low, high in pairwise(strides)}
        widths = list(channels.values())
        self.masks = nn.ModuleDict()
        for task, reads_pooled in tasks.items():
            own = {
                str(stride): Mask(width, width if stride in self._factors else 0, reduction)
                for stride, width in channels.items()
            }
            if reads_pooled:
                own["pooled"] = Mask(pooled, pooled, reduction, vector=True)
            self.masks[task] = nn.ModuleDict(own)
        self.upward = nn.ModuleDict(
            {
                str(stride): nn.Sequential(nn.Conv2d(low, high, 3, padding=1, bias=False), _norm(high), nn.ReLU())
                for stride, low, high in zip(strides[1:], widths, widths[1:], strict=False)
            }
        )
        if any(tasks.values()):
            self.upward["pooled"] = nn.Sequential(
                nn.Conv2d(widths[-1], pooled, 3, padding=1, bias=False), _norm(pooled), nn.ReLU()
            )
        # The tasks take turns in what they share: each is normalised by statistics of its own in evaluation, too.
        self._statistics = TaskStatistics(self.upward, list(tasks))

    def forward(self, task: str, maps: Mapping[int, Tensor], pooled: Tensor) -> tuple[dict[int, Tensor], Tensor]:
        """Attend.

        Args:
            task: Whose masks.
            maps: float [B, C, h, w] by stride, finest first.
            pooled: float [B, F].

        Returns:
            The attended maps, and the pooled feature, attended where the task reads it.
        """
        self._statistics.select(task)
        masks = cast(nn.ModuleDict, self.masks[task])
        attended: dict[int, Tensor] = {}
        last: Tensor | None = None
        for stride, map_ in maps.items():
            inputs = [map_]
            if last is not None:
                factor = self._factors[stride]
                inputs.append(F.max_pool2d(self.upward[str(stride)](last), factor, ceil_mode=True))
            last = attended[stride] = masks[str(stride)](torch.cat(inputs, 1)) * map_
        if "pooled" in masks and last is not None:
            vector = pooled[:, :, None, None]
            below = self.upward["pooled"](last).mean((2, 3), keepdim=True)
            pooled = (masks["pooled"](torch.cat([vector, below], 1)) * vector).flatten(1)
        return attended, pooled


class MtanSharing(HardSharing):
    """One trunk; each task looks at its maps through soft attention masks of its own (Liu 2019).

    Maps are masked before the pyramid, which is shared. Placeholder tokens meet the trunk as with hard sharing.

    Args:
        config: The model section.
        tasks: Names of the tasks that need images.
        pooled_only: Those of them whose heads read the pooled feature only.
        build: Builds the backbone's model, see `ImageBackbone`; None: the library does.

    Raises:
        HarnessError: Maps cannot be pooled from one stride to the next.
    """

    needs_maps = True  # for every task, of a backbone whose features are kept, too

    def __init__(
        self, config: ModelConfig, tasks: Sequence[str], pooled_only: Collection[str], build: Build | None = None
    ) -> None:
        super().__init__(config, tasks, (), build)  # masks need every task's maps
        assert isinstance(config.sharing, MtanConfig)
        self._vectors = frozenset(pooled_only)
        # The trunk hands its maps out as they are, and the pyramid is made of what a task attends to.
        self.neck = self.trunk.neck
        self.trunk.neck = nn.Identity()
        channels = {stride: self.trunk.backbone.channels[stride] for stride in config.neck.strides}
        reads = {task: task in self._vectors for task in tasks}
        self.attention = AttentionStages(reads, channels, self.shape.pooled_width, config.sharing.reduction)

    def parts(self) -> dict[str, nn.Module]:
        """What the tasks share, and their masks, in parts that share no parameter."""
        return super().parts() | {"neck": self.neck, "attention": self.attention}

    def forward(self, batches: Mapping[str, Batch], placeholders: Placeholders | None) -> dict[str, Features]:
        """Encode every task's images and attend to them.

        Args:
            batches: By task.
            placeholders: The shared tokens, or None.

        Returns:
            Features by task.
        """
        found = {}
        for task, features in super().forward(batches, placeholders).items():
            maps, pooled = self.attention(task, features.pyramid, features.pooled)
            vector = task in self._vectors and not (self.maps_for_all and self.training)
            levels = {} if vector else self.neck({str(stride): one for stride, one in maps.items()})
            found[task] = Features({int(stride): one for stride, one in levels.items()}, pooled, features.stream)
        return found


def _norm(channels: int, vector: bool = False) -> nn.Module:
    return nn.GroupNorm(1, channels) if vector else nn.BatchNorm2d(channels)
