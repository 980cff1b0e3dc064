"""What all mixtures of experts share: one trunk, and a mixture on each map that heads read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, cast

from torch import Tensor, nn

from harness.data.batches import Batch
from harness.models.backbones.base import Build
from harness.models.config import ModelConfig
from harness.models.features import Features, padding_of
from harness.models.placeholders import Placeholders
from harness.models.sharing.experts import Gate
from harness.models.sharing.hard import HardSharing
from harness.models.sharing.loads import GateLoads, Place

POOLED = "pooled"


class Mixture(Protocol):
    """A map to a map for each task."""

    def __call__(self, features: Tensor, padding: Tensor | None, tasks: Sequence[str]) -> dict[str, Tensor]:
        """Mix.

        Args:
            features: float [B, C, h, w] of the same images for all `tasks`.
            padding: bool [B, h, w], True at padding, or None.
            tasks: Whose results are wanted.

        Returns:
            float [B, C, h, w] by task.
        """

    def places(self) -> list[Place]:
        """The gates, and what they weigh."""


class MixtureSharing(HardSharing):
    """Hard sharing, and between trunk and heads a mixture of experts of its own for every map.

    Maps are the pyramid's levels, and the pooled feature as a map with one position. A mixture knows only the tasks
    that read its map. Placeholder tokens meet the trunk as they do with hard sharing.

    Args:
        config: The model section.
        tasks: Names of the tasks that need images.
        pooled_only: Those of them whose heads read the pooled feature only.
        build: Builds the backbone's model, see `ImageBackbone`; None: the library does.
    """

    def __init__(
        self, config: ModelConfig, tasks: Sequence[str], pooled_only: Collection[str], build: Build | None = None
    ) -> None:
        super().__init__(config, tasks, pooled_only, build)
        reading_pooled = [task for task in tasks if task in pooled_only]
        reading_maps = [task for task in tasks if task not in pooled_only]
        self.mixtures = nn.ModuleDict()
        self._loads: GateLoads | None = None
        if reading_pooled:
            self.mixtures[POOLED] = self._mixture(config, reading_pooled, self.shape.pooled_width, 1)
        for stride in self.shape.strides if reading_maps else ():
            self.mixtures[str(stride)] = self._mixture(config, reading_maps, self.shape.channels, 3)

    @abstractmethod
    def _mixture(self, config: ModelConfig, tasks: Sequence[str], channels: int, kernel: int) -> nn.Module:
        """A `Mixture` for one map.

        Args:
            config: The model section.
            tasks: Those that read the map.
            channels: C of the map.
            kernel: Side of the experts' convolutions.
        """

    def parts(self) -> dict[str, nn.Module]:
        """What the tasks share, in parts that share no parameter."""
        return super().parts() | {"experts": self.mixtures}

    def forward(self, batches: Mapping[str, Batch], placeholders: Placeholders | None) -> dict[str, Features]:
        """Encode every task's images and mix what the experts make of them.

        Args:
            batches: By task.
            placeholders: The shared tokens, or None.

        Returns:
            Features by task.
        """
        features = super().forward(batches, placeholders)
        found = dict(features)
        for tasks, name in self._calls(features):
            mixture = cast(Mixture, self.mixtures[name])
            one, batch = features[tasks[0]], batches[tasks[0]]
            if name == POOLED:
                for task, map_ in mixture(one.pooled[:, :, None, None], None, tasks).items():
                    found[task] = replace(found[task], pooled=map_.flatten(1))
                if self._loads is not None:
                    self._loads.add(name, mixture.places(), tasks)
                continue
            level = one.pyramid[int(name)]
            for task, map_ in mixture(level, padding_of(level, batch), tasks).items():
                found[task] = replace(found[task], pyramid=found[task].pyramid | {int(name): map_})
            if self._loads is not None:
                self._loads.add(name, mixture.places(), tasks)
        return found

    def watch_gates(self, on: bool) -> None:
        """Begin to sum up the weights that gates give, or end it."""
        self._loads = GateLoads() if on else None
        for module in self.mixtures.modules():
            if isinstance(module, Gate):
                module.keeps, module.kept = on, None

    def gate_loads(self) -> dict[str, tuple[float, int]]:
        """Sum of the weights since the watch began and number of images, by ``<task>/<map>/<expert>``."""
        return self._loads.sums if self._loads is not None else {}

    def _calls(self, features: Mapping[str, Features]) -> Iterator[tuple[list[str], str]]:
        """Which tasks have a mixture computed together, because the trunk gave them the very same features."""
        for reading_pooled in (True, False):
            same: dict[int, list[str]] = {}
            for task, one in features.items():
                if (task in self._pooled_only) == reading_pooled:
                    same.setdefault(id(one.pooled), []).append(task)
            for tasks in same.values():
                for name in [POOLED] if reading_pooled else map(str, self.shape.strides):
                    yield tasks, name
