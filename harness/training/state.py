"""How far a run has come."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

Curves = dict[str, list[tuple[int, float]]]


@dataclass
class Progress:
    """What a run has done so far; part of every checkpoint, so that all of it sums up over interrupted parts.

    Attributes:
        step: Steps done.
        seconds: Wall time of training.
        images: Training images seen.
        curves: Learning curves: (step, value) by name.
        pending: Losses since the last point of the curves.
        skipped: A sentence about each training image that could not be read.
        points: Lines of the run's journal.
        phases: Seconds of training by phase; see `harness.training.meters`.
        memory: Peak resident memory in bytes, of the process that needed most.
        gpu_memory: Peak GPU memory in bytes, of the GPU that gave most; None without a GPU.
        joules: What the GPUs used; None where it cannot be measured.
        looked: The step after which the selection splits were last looked at.
        best_score: Best mean over tasks of the main metric on the selection splits; None before the first look.
        best_step: The step after which it was reached first.
        fruitless: Looks since then.
        stages: Main metric by dataset name on the evaluation splits after each stage but the last, under regimes of
            stages.
        ended: Why training ended before its last step, as a sentence; empty if it did not.
    """

    step: int = 0
    seconds: float = 0.0
    images: int = 0
    curves: Curves = field(default_factory=dict)
    pending: dict[str, list[float]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    points: int = 0
    phases: dict[str, float] = field(default_factory=dict)
    memory: int = 0
    gpu_memory: int | None = None
    joules: float | None = 0.0
    looked: int = 0
    best_score: float | None = None
    best_step: int = 0
    fruitless: int = 0
    stages: list[dict[str, float]] = field(default_factory=list)
    ended: str = ""

    def take(self, losses: Mapping[str, float]) -> None:
        """Take up a step's losses."""
        for name, value in losses.items():
            self.pending.setdefault(name, []).append(value)

    def losses(self) -> dict[str, float]:
        """Mean losses since they were last asked for, as points of the learning curves."""
        # A name with a slash is a curve's already: of what is no task's loss.
        means = {
            name if "/" in name else f"loss/{name}": math.fsum(values) / len(values)
            for name, values in self.pending.items()
        }
        self.pending = {}
        return means

    def draw(self, point: Mapping[str, float]) -> None:
        """Put a point at this step on the learning curves."""
        for name, value in point.items():
            self.curves.setdefault(name, []).append((self.step, value))
