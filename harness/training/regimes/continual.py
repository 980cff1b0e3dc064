"""Continual learning: one task after another."""

from __future__ import annotations

import numpy as np

from harness.training.regimes.plan import Plan, Setting, in_stages


def continual(setting: Setting) -> Plan:
    """A, then B, then C, each S steps alone: T S steps in all.

    What is forgotten on the way is the backward transfer (Lopez-Paz & Ranzato 2017, arXiv:1706.08840, eq. 3); see
    `harness.board.schema.Record.backward_transfer`.
    """
    one_hot = np.eye(len(setting.tasks), dtype=bool)
    return in_stages(setting, [np.tile(one_hot[task], (setting.batches, 1)) for task in setting.order])
