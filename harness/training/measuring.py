"""Scores of a network in the middle of training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.data.loading import TaskData
from harness.models.network import MultiTaskNetwork
from harness.progress import Reporter
from harness.scoring import score
from harness.training import checkpoints
from harness.training.engine import Engine
from harness.training.inference import SUFFIX, predict


class Measure:
    """Predicts and scores as the final evaluation does, through files in the official formats.

    It changes nothing that training depends on: a run that is measured goes through the same weights as another.

    Args:
        data: What is scored, by dataset name, without augmentation.
        batch_size: Images per forward pass.
        workers: Loader processes.
        folder: For files of predictions, which the next measurement replaces.
        engine: Device and processes.
        reporter: Shows progress on a terminal; elsewhere it would fill the log.
    """

    def __init__(
        self,
        data: Mapping[str, TaskData],
        batch_size: int,
        workers: int,
        folder: Path,
        engine: Engine,
        reporter: Reporter,
    ) -> None:
        self._data = data
        self._batch_size = batch_size
        self._workers = workers
        self._folder = folder
        self._engine = engine
        self._reporter = reporter if reporter.console.is_terminal else Reporter(quiet=True)

    def __call__(self, network: MultiTaskNetwork) -> dict[str, float]:
        """Main metric by dataset name, NaN where the split leaves it undefined. All processes.

        Args:
            network: Ends in training mode, with statistics and random streams as they were.
        """
        streams = checkpoints.random_states()
        found = {name: self._value(network, name) for name in self._data}
        network.train()
        checkpoints.restore_random_states(streams)
        return found

    def _value(self, network: MultiTaskNetwork, name: str) -> float:
        data = self._data[name]
        path = self._folder / f"{name}{SUFFIX[data.adapter.task]}"
        predict(network, self._engine, name, data, path, self._batch_size, self._reporter, self._workers)

        def value() -> float:
            result = score(data.adapter, path, data.rows)
            return float(result.reduce()[result.main])

        return self._engine.from_main(value)
