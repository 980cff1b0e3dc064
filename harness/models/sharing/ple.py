"""Experts of each task's own beside shared ones: customized gate control, and progressive layered extraction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from harness.models.config import ModelConfig
from harness.models.sharing.experts import Experts, Gate, mixed
from harness.models.sharing.loads import SHARED_GATE, Place, numbered
from harness.models.sharing.mixture import MixtureSharing
from harness.models.sharing.options import CgcConfig, PleConfig

SHARED = ""  # key of the shared stream beside those of the tasks, whose names are never empty


class Extraction(nn.Module):
    """One level (Tang 2020, "Progressive Layered Extraction", eq. 1-4).

    A task's gate weighs its own experts and the shared ones. The shared gate, which only a level below another has,
    weighs all experts: those of every task, and the shared ones.

    Args:
        tasks: T of them.
        channels: C of the map.
        own: Experts of each task.
        shared: Shared experts.
        width: Of an expert.
        kernel: Side of its convolutions.
        onward: Whether there is a level above.
    """

    def __init__(
        self, tasks: Sequence[str], channels: int, own: int, shared: int, width: int, kernel: int, onward: bool
    ) -> None:
        super().__init__()
        self.own = nn.ModuleDict({task: Experts(channels, own, width, kernel) for task in tasks})
        self.shared = Experts(channels, shared, width, kernel)
        self.gates = nn.ModuleDict({task: Gate(channels, own + shared) for task in tasks})
        self.shared_gate = Gate(channels, len(tasks) * own + shared) if onward else None

    def forward(self, streams: Mapping[str, Tensor], padding: Tensor | None, tasks: Sequence[str]) -> dict[str, Tensor]:
        """Extract.

        Args:
            streams: float [B, C, h, w] of the same images by task, and under `SHARED`; experts and gates read their
                own one.
            padding: bool [B, h, w], True at padding, or None.
            tasks: Whose streams are wanted.

        Returns:
            The streams of `tasks`, and below another level the shared one.
        """
        shared = self.shared(streams[SHARED])
        wanted = tasks if self.shared_gate is None else list(self.own)
        own = {task: self.own[task](streams[task]) for task in wanted}
        found = {
            task: mixed(self.gates[task](streams[task], padding), torch.cat([own[task], shared], 1)) for task in tasks
        }
        if self.shared_gate is not None:
            weights = self.shared_gate(streams[SHARED], padding)
            found[SHARED] = mixed(weights, torch.cat([*own.values(), shared], 1))
        return found

    def places(self, level: int) -> list[Place]:
        """The gates, and what they weigh.

        Args:
            level: Which one this is.
        """
        shared = numbered(self.shared.count, "shared")
        own = {task: experts.count for task, experts in self.own.items()}
        found = [
            Place(task, level, numbered(count, "own") + shared, self.gates[task])  # type: ignore[arg-type]
            for task, count in own.items()
        ]
        if self.shared_gate is not None:
            every = tuple(name for task, count in own.items() for name in numbered(count, task))  # type: ignore[arg-type]
            found.append(Place(SHARED_GATE, level, every + shared, self.shared_gate))
        return found


class Ple(nn.Module):
    """Stacked levels of extraction; a single one is customized gate control (CGC).

    Every level below the last computes all tasks' streams of an image, because the shared stream is made of all
    tasks' experts.

    Args:
        tasks: T of them.
        channels: C of the map.
        own: Experts of each task.
        shared: Shared experts.
        width: Of an expert.
        kernel: Side of its convolutions.
        levels: How many.
    """

    def __init__(
        self, tasks: Sequence[str], channels: int, own: int, shared: int, width: int, kernel: int, levels: int
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            Extraction(tasks, channels, own, shared, width, kernel, onward=number < levels)
            for number in range(1, levels + 1)
        )
        self._tasks = tuple(tasks)

    def forward(self, features: Tensor, padding: Tensor | None, tasks: Sequence[str]) -> dict[str, Tensor]:
        """See `Mixture`."""
        streams = dict.fromkeys([*self._tasks, SHARED], features)
        for number, level in enumerate(self.levels, start=1):
            streams = level(streams, padding, tasks if number == len(self.levels) else self._tasks)
        return streams

    def places(self) -> list[Place]:
        """See `Mixture`."""
        return [place for number, level in enumerate(self.levels, start=1) for place in level.places(number)]  # type: ignore[operator]


class CgcSharing(MixtureSharing):
    """One trunk, then experts of each task's own and shared ones, weighed by each task's gate (CGC; Tang 2020)."""

    def _mixture(self, config: ModelConfig, tasks: Sequence[str], channels: int, kernel: int) -> nn.Module:
        options = config.sharing
        assert isinstance(options, CgcConfig)
        return Ple(tasks, channels, options.own, options.shared, options.width, kernel, levels=1)


class PleSharing(MixtureSharing):
    """One trunk, then levels of own and shared experts, with a shared gate between levels (PLE; Tang 2020)."""

    def _mixture(self, config: ModelConfig, tasks: Sequence[str], channels: int, kernel: int) -> nn.Module:
        options = config.sharing
        assert isinstance(options, PleConfig)
        return Ple(tasks, channels, options.own, options.shared, options.width, kernel, options.levels)
