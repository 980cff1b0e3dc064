"""What a regime makes: for every optimizer step of a run the tasks that it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from harness.training.config import RegimeConfig


@dataclass(frozen=True)
class Setting:
    """What a regime plans for.

    Attributes:
        config: Its section of the submission.
        tasks: The T tasks' names.
        batches: S, how many batches each task gets in all; under `mt_dnn` the mean over tasks.
        epoch: For each task the number of batches in its training images.
        draw: The run's random stream for plans.
    """

    config: RegimeConfig
    tasks: tuple[str, ...]
    batches: int
    epoch: Mapping[str, float]
    draw: np.random.Generator

    @property
    def order(self) -> list[int]:
        """Indices of the tasks in the order in which they are learned."""
        return [self.tasks.index(name) for name in self.config.order or self.tasks]


@dataclass(frozen=True)
class Plan:
    """Which tasks each step trains; a table, so that a resumed run needs nothing but the step.

    Attributes:
        names: The T tasks.
        takes: bool [steps, T], whether a step takes a batch of a task.
        ends: After how many steps each stage ends; the last stage ends with the run.
    """

    names: tuple[str, ...]
    takes: NDArray[np.bool_]
    ends: Sequence[int] = field(default=())

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return len(self.takes)

    def tasks(self, step: int) -> list[str]:
        """The tasks that a step trains, one at least."""
        return [self.names[index] for index in np.flatnonzero(self.takes[step])]

    def batches(self, stop: int | None = None) -> dict[str, int]:
        """How many batches each task has had before a step; of the whole run without one."""
        return dict(zip(self.names, self.takes[:stop].sum(0).tolist(), strict=True))

    def stage(self, number: int) -> list[str]:
        """The tasks that a stage trains."""
        start = self.ends[number - 1] if number else 0
        return [self.names[index] for index in np.flatnonzero(self.takes[start : self.ends[number]].any(0))]

    def due(self, step: int, known: int) -> bool:
        """Whether a stage but the last ends before a step, when the ends of `known` of them were looked at."""
        return known < len(self.ends) - 1 and step == self.ends[known]


def in_stages(setting: Setting, stages: Sequence[NDArray[np.bool_]]) -> Plan:
    """A plan of stages, one after another.

    Args:
        setting: What is planned for.
        stages: bool [steps, T] each.
    """
    return Plan(setting.tasks, np.concatenate(stages), tuple(np.cumsum([len(stage) for stage in stages]).tolist()))


def apportion(total: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers that sum to `total`, as near to the shares as can be (largest remainder, Hamilton's method)."""
    exact = total * np.asarray(shares, dtype=np.float64) / np.sum(shares)
    counts = np.floor(exact).astype(np.int64)
    rest = np.argsort(-(exact - counts), kind="stable")[: total - int(counts.sum())]
    counts[rest] += 1
    return [int(count) for count in counts]
