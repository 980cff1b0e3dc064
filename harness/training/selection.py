"""Choosing the weights that score best on the selection splits, and ending when nothing better comes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from harness.data.loading import TaskData
from harness.models.network import MultiTaskNetwork
from harness.progress import Reporter
from harness.scoring import score
from harness.training import checkpoints
from harness.training.config import SelectionConfig
from harness.training.engine import Engine
from harness.training.inference import SUFFIX, predict
from harness.training.state import Progress


class Selection:
    """Looks at the selection splits from time to time and keeps the best weights.

    A look predicts and scores as the final evaluation does, through files in the official formats. It changes nothing
    that training depends on: a run with looks goes through the same weights as one without.

    Args:
        config: How often, and when to end.
        data: The selection splits by dataset name, without augmentation.
        batch_size: Images per forward pass.
        workers: Loader processes.
        folder: For files of predictions, which the next look replaces.
        engine: Device and processes.
        reporter: Shows progress.

    Attributes:
        best: The best weights so far, in the main process; empty before the first look.
    """

    def __init__(
        self,
        config: SelectionConfig,
        data: Mapping[str, TaskData],
        batch_size: int,
        workers: int,
        folder: Path,
        engine: Engine,
        reporter: Reporter,
    ) -> None:
        self._config = config
        self._data = data
        self._batch_size = batch_size
        self._workers = workers
        self._folder = folder
        self._engine = engine
        self._reporter = reporter
        self.best: dict[str, Tensor] = {}

    def due(self, progress: Progress, last: bool) -> bool:
        """Whether the weights after this step are to be looked at and have not been yet."""
        return 0 < progress.step != progress.looked and (last or progress.step % self._config.every == 0)

    def look(self, network: MultiTaskNetwork, progress: Progress) -> dict[str, float]:
        """Score the network as it is, and keep its weights if they are the best so far. All processes.

        The score is the mean over tasks of the main metric. A task whose metric the split leaves undefined (boxes
        without any ground truth) has no part in it.

        Args:
            network: Ends in training mode, with statistics and random streams as they were.
            progress: Brought up to date.

        Returns:
            Points of the learning curves: ``selection/<dataset name>``.
        """
        streams = checkpoints.random_states()
        found = {name: self._value(network, name) for name in self._data}
        network.train()
        checkpoints.restore_random_states(streams)
        known = {name: value for name, value in found.items() if math.isfinite(value)}
        mean = math.fsum(known.values()) / len(known) if known else 0.0
        better = progress.best_score is None or mean > progress.best_score
        if better:
            progress.best_score, progress.best_step, progress.fruitless = mean, progress.step, 0
            if self._engine.main:
                self.best = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
        else:
            progress.fruitless += 1
            if progress.fruitless == self._config.patience:
                progress.ended = (
                    f"training ended after step {progress.step}: nothing better on the selection splits since step"
                    f" {progress.best_step} (training.selection.patience: {progress.fruitless})"
                )
        progress.looked = progress.step
        best = "the best so far" if better else f"best {100 * progress.best_score:.2f} at step {progress.best_step}"  # type: ignore[operator]
        self._reporter.say(f"selection at step {progress.step}: {100 * mean:.2f}, {best}")
        return {f"selection/{name}": value for name, value in known.items()}

    @torch.no_grad()
    def choose(self, network: MultiTaskNetwork) -> None:
        """Give the network the best weights; in the main process."""
        if self.best:
            network.load_state_dict(self.best)

    def _value(self, network: MultiTaskNetwork, name: str) -> float:
        data = self._data[name]
        path = self._folder / f"{name}{SUFFIX[data.adapter.task]}"
        quiet = self._reporter if self._reporter.console.is_terminal else Reporter(quiet=True)
        predict(network, self._engine, name, data, path, self._batch_size, quiet, self._workers)

        def value() -> float:
            result = score(data.adapter, path, data.rows)
            return float(result.reduce()[result.main])

        return self._engine.from_main(value)
