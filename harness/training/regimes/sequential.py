"""ERNIE 2.0's sequential multi-task learning: in every stage one more task, the earlier ones trained on beside it."""

from __future__ import annotations

import numpy as np

from harness.errors import HarnessError
from harness.training.regimes.plan import Plan, Setting, in_stages


def sequential(setting: Setting) -> Plan:
    """A, then AB, then ABC, each stage from the weights of the one before.

    A task's S batches are spread evenly over the stages from its own on, so that the j-th of T tasks gets S / (T - j)
    in each (j from 0). A stage has as many steps as its newest task has batches; the earlier ones, with fewer, sit in
    some of these steps, evenly spread. That makes S (1 + 1/2 + ... + 1/T) steps in all.

    Raises:
        HarnessError: There are fewer batches than stages.

    Source:
        Sun et al. 2019 (arXiv:1907.12412), continual multi-task learning: the number of a task's batches is fixed, and
        they are spread over the stages. (Their table gives a task more in its first stage; here they are even.)
    """
    order, total = setting.order, setting.batches
    if total < len(order):
        raise HarnessError(
            f"training.steps: {total} batches of each of {len(order)} tasks are too few for the regime sequential,"
            f" which spreads them over up to {len(order)} stages; take {len(order)} at least"
        )
    stages = []
    for number in range(len(order)):
        parts = [(number - place, len(order) - place) for place in range(number + 1)]
        counts = [total * (part + 1) // whole - total * part // whole for part, whole in parts]
        steps = np.arange(max(counts))
        takes = np.zeros((len(steps), len(order)), dtype=bool)
        for task, count in zip(order, counts, strict=False):
            takes[:, task] = (steps + 1) * count // len(steps) > steps * count // len(steps)
        stages.append(takes)
    return in_stages(setting, stages)
