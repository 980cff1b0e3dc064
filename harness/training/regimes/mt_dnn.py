"""MT-DNN's regime: batches of single tasks in random order."""

from __future__ import annotations

import numpy as np

from harness.training.regimes.plan import Plan, Setting, apportion


def mt_dnn(setting: Setting) -> Plan:
    """One batch of one task per step: T S steps in all, shuffled.

    How many of them a task gets is fixed by `sampling`, in proportion to n^(1/τ) with n the number of batches in its
    training images: ``proportional`` τ = 1, as if all data sets were packed into batches, put together and shuffled;
    ``sqrt`` τ = 2; ``temperature`` any τ; ``uniform`` equally many for all.

    Source:
        Liu et al. 2019, algorithm 1 (arXiv:1901.11504); temperatures: Arivazhagan et al. 2019 (arXiv:1907.05019).
    """
    config = setting.config
    inverse = {"proportional": 1.0, "sqrt": 0.5, "temperature": 1 / config.temperature, "uniform": 0.0}[config.sampling]
    shares = [setting.epoch[name] ** inverse for name in setting.tasks]
    counts = apportion(setting.batches * len(setting.tasks), shares)
    drawn = setting.draw.permutation(np.repeat(np.arange(len(counts)), counts))
    return Plan(setting.tasks, drawn[:, None] == np.arange(len(counts)))
