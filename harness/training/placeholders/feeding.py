"""Placeholder samples on their way into a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.data.loading import TrainingOrder, loader
from harness.data.unlabelled import UnlabelledData
from harness.submission import Submission
from harness.training.engine import Engine
from harness.training.placeholders.samples import Samples


class SampleFeed:
    """Unlabelled batches, one of each task that has a pool for every labelled one.

    Their order is a function of seed, data set and step, so a resumed run goes on exactly. Several processes get slices
    of each batch.

    Args:
        submission: The recipe.
        pools: By dataset name; empty for no placeholder samples.
        engine: Device and processes.
        taken: How many batches each task has had.
    """

    def __init__(
        self, submission: Submission, pools: Mapping[str, UnlabelledData], engine: Engine, taken: Mapping[str, int]
    ) -> None:
        training = submission.training
        self._config = training.placeholders.samples
        self._device = engine.device
        self._seed = next((pool.seed for pool in pools.values()), 0)
        self._batches = {}
        for name, pool in pools.items():
            size = self._config.batch_size(submission.task(name).batch_size)
            order = TrainingOrder(pool, size, taken[name], engine.rank, engine.world)
            self._batches[name] = iter(loader(pool, order, training.workers))

    def next(self, tasks: Sequence[str], step: int) -> Samples | None:
        """What goes into a step beside the labelled batches of these tasks; None for nothing."""
        found = {name: next(self._batches[name]).to(self._device) for name in tasks if name in self._batches}
        return Samples(found, self._config, self._seed, step) if found else None
