"""Whether tasks share a weight that a balancing method can watch, found out before training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from harness.data.loading import TaskData
from harness.run_data import Splits, build_network
from harness.submission import Submission
from harness.training.balancing.base import Setting, build_balancer
from harness.training.regimes.plan import Plan

_IMAGES = 2  # of each task: a batch norm cannot normalise a single value


def require_shared_weights(submission: Submission, splits: Splits, data: Mapping[str, TaskData], planned: Plan) -> None:
    """See to it that a method which watches a weight (GradNorm) finds one in every step that there will be.

    It is asked as it will be in training, with the losses of a few images, in a network that is thrown away.

    Args:
        submission: The recipe.
        splits: Of the run.
        data: Training splits by dataset name.
        planned: Which tasks each step trains.

    Raises:
        HarnessError: The tasks of some step share no weight.
    """
    balancer = build_balancer(submission.training.balancing, Setting(dict.fromkeys(planned.names, 1.0)))
    if not balancer.watches:
        return
    with torch.random.fork_rng(devices=[]):
        network = build_network(submission, splits).train()
        network.objectives = None  # whose terms are no task's loss
        losses = network(
            {name: one.batch([(0, row % len(one)) for row in range(_IMAGES)]) for name, one in data.items()}
        )
        for tasks in _largest(planned):
            balancer.watched(network, {name: losses[name] for name in planned.names if name in tasks})


def _largest(planned: Plan) -> list[set[str]]:
    """The sets of tasks that steps train, without those that lie in another: what all tasks share, some share too."""
    sets = [{planned.names[index] for index in np.flatnonzero(row)} for row in np.unique(planned.takes, axis=0)]
    return [one for one in sets if not any(one < other for other in sets)]
