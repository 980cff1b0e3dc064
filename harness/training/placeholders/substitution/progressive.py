"""Strategy `progressive`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.training.placeholders.substitution.base import Setting, Strategy

WARM_UP = 0.05  # of a task's own steps, whose mean loss says where it comes


class Progressive(Strategy):
    """Tasks of small loss first; the pool and the share of positions grow through the first half of training.

    At step e of E, with p = min(1, e / 0.5E): ρ = `ratio` · p, and the pool holds the first ⌊1 + p·S⌋ of the S sources
    in the order of their losses. The source is drawn uniformly from the pool, for each batch and task; a target that is
    the pool's only task keeps its features.

    A task's loss is the mean over the first 5% of its own steps, which is known without training anything else and is
    the same on every machine, as the loss of a recorded single-task baseline is not. Before that a task is no source.

    Args:
        setting: What it may know of the run.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._wanted = {name: math.ceil(WARM_UP * setting.batches[name]) for name in setting.sources}
        self._losses: dict[str, list[float]] = {name: [] for name in setting.sources}

    def ratio(self, step: int) -> float:
        """ρ of a step."""
        return self.setting.config.share * self._progress(step)

    def pool(self, step: int) -> list[str]:
        """The tasks that can be a source in a step, that of the smallest loss first."""
        known = {
            name: math.fsum(losses) / len(losses)
            for name, losses in self._losses.items()
            if losses and len(losses) >= self._wanted[name]
        }
        ordered = sorted(known, key=lambda name: known[name])
        return ordered[: math.floor(1 + self._progress(step) * len(self._losses))]

    def sources(self, step: int, target: str) -> Sequence[str]:
        """One of the pool that can be the target's source, uniformly."""
        among = [name for name in self.pool(step) if name in self.setting.pairs[target]]
        return (among[int(self.draw(step, target).integers(len(among)))],) if among else ()

    def take(self, losses: Mapping[str, float], rate: float) -> None:
        """Take up losses until there are enough."""
        for name, own in self._losses.items():
            if name in losses and len(own) < self._wanted[name]:
                own.append(losses[name])

    def points(self) -> dict[str, float]:
        """Each task's loss, once it is known."""
        return {
            f"substitution/loss/{name}": math.fsum(own) / len(own)
            for name, own in self._losses.items()
            if own and len(own) == self._wanted[name]
        }

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"losses": self._losses}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore `state`."""
        self._losses = {name: list(own) for name, own in state["losses"].items()}

    def _progress(self, step: int) -> float:
        return min(1.0, step / (0.5 * self.setting.steps))
