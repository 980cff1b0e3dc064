"""MT-DNN's regime: batches of single tasks in random order."""

from __future__ import annotations

from math import ceil

import numpy as np

from harness.errors import HarnessError
from harness.training.regimes.plan import Plan, Setting, apportion


def mt_dnn(setting: Setting) -> Plan:
    """One batch of one task per step: T S steps in all, shuffled.

    How many of them a task gets is fixed by `sampling`, in proportion to n^(1/τ) with n the number of batches in its
    training images: ``proportional`` τ = 1, as if all data sets were packed into batches, put together and shuffled;
    ``sqrt`` τ = 2; ``temperature`` any τ; ``uniform`` equally many for all.

    Raises:
        HarnessError: A task would get no batch.

    Source:
        Liu et al. 2019, algorithm 1 (arXiv:1901.11504); temperatures: Arivazhagan et al. 2019 (arXiv:1907.05019).
    """
    config = setting.config
    inverse = {"proportional": 1.0, "sqrt": 0.5, "temperature": 1 / config.temperature, "uniform": 0.0}[config.sampling]
    shares = [setting.epoch[name] ** inverse for name in setting.tasks]
    total = setting.batches * len(setting.tasks)
    counts = apportion(total, shares)
    if missed := [name for name, count in zip(setting.tasks, counts, strict=True) if not count]:
        raise HarnessError(
            f"training.regime: mt_dnn with sampling {config.sampling} gives none of {total} batches to"
            f" {', '.join(missed)}, which would never be trained; take more training.steps"
            f" ({ceil(sum(shares) / (min(shares) * len(shares)))} are enough), or a sampling that depends less on size:"
            " sqrt, temperature or uniform"
        )
    drawn = setting.draw.permutation(np.repeat(np.arange(len(counts)), counts))
    return Plan(setting.tasks, drawn[:, None] == np.arange(len(counts)))
