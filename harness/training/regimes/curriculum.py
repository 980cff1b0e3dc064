"""A curriculum over sets of tasks: each alone, then all pairs, then all triples, up to all together."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np

from harness.errors import HarnessError
from harness.training.regimes.plan import Plan, Setting, in_stages


def curriculum(setting: Setting) -> Plan:
    """(A)(B)(C), then (AB)(AC)(BC), then (ABC): stage k takes all sets of k tasks in turn, each step all of a set.

    A task's S batches are split evenly over the T stages, and in a stage over the C(T-1, k-1) sets that have it. The
    last stage takes what rounding leaves over, so that every task has exactly S. That makes about S (1 + 1/2 + ... +
    1/T) steps in all.

    Raises:
        HarnessError: There are fewer batches than sets of tasks to put them in.
    """
    tasks, total, left = len(setting.tasks), setting.batches, setting.batches
    stages = []
    for size in range(1, tasks + 1):
        sets = comb(tasks - 1, size - 1)  # that a given task is in
        each = left if size == tasks else total // (tasks * sets)
        if not each:
            raise HarnessError(
                f"training.steps: {total} batches of each of {tasks} tasks are too few for the regime curriculum, which"
                f" splits them over {tasks} stages of up to {max(comb(tasks - 1, k) for k in range(tasks))} sets each;"
                f" take {tasks * max(comb(tasks - 1, k) for k in range(tasks))} at least"
            )
        left -= each * sets
        found = [np.isin(np.arange(tasks), members) for members in combinations(setting.order, size)]
        stages.append(np.repeat(np.array(found), each, axis=0))
    return in_stages(setting, stages)
