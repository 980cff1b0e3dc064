"""Joint training: every step trains every task."""

from __future__ import annotations

import numpy as np

from harness.training.regimes.plan import Plan, Setting


def joint(setting: Setting) -> Plan:
    """One batch of every task per step, one optimizer step: S steps in all."""
    return Plan(setting.tasks, np.ones((setting.batches, len(setting.tasks)), dtype=bool))
