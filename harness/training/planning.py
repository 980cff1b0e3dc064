"""The plan of a run: its regime, for its data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.data.loading import TaskData
from harness.data.transforms import derive_seed
from harness.errors import HarnessError
from harness.registry import look_up
from harness.submission import Submission
from harness.training.regimes import REGIMES
from harness.training.regimes.plan import Plan, Setting


def plan(submission: Submission, data: Mapping[str, TaskData]) -> Plan:
    """Which tasks each step of a run trains.

    A smoke run gives each task as many batches as it has images, at most.

    Args:
        submission: The recipe.
        data: The training splits, by dataset name.

    Raises:
        HarnessError: There are too few steps for the regime.
    """
    config, limit = submission.training, submission.evaluation.limit
    setting = Setting(
        config.regime,
        tuple(task.dataset for task in submission.tasks),
        min(config.steps, limit) if limit is not None else config.steps,
        {task.dataset: len(data[task.dataset]) / task.batch_size for task in submission.tasks},
        np.random.default_rng(derive_seed("regime", next(iter(data.values())).seed)),
    )
    try:
        found: Plan = look_up(REGIMES, config.regime.name, "regime")(setting)
    except HarnessError as error:
        if setting.batches == config.steps:
            raise
        raise HarnessError(
            f"{error}; evaluation.limit: {limit} (--limit) leaves so few of training.steps: {config.steps}"
        ) from None
    return found
