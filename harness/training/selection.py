"""Choosing the weights that score best on the selection splits, and ending when nothing better comes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harness.models.network import MultiTaskNetwork
from harness.progress import Reporter
from harness.training.config import SelectionConfig
from harness.training.engine import Engine
from harness.training.measuring import Measure
from harness.training.state import Progress


class Selection:
    """Looks at the selection splits from time to time and keeps the best weights.

    Args:
        config: How often, and when to end.
        measure: Scores a network on the selection splits.
        engine: The processes.
        reporter: Tells what was found.

    Attributes:
        best: The best weights so far, in the main process; empty before the first look.
    """

    def __init__(self, config: SelectionConfig, measure: Measure, engine: Engine, reporter: Reporter) -> None:
        self._config = config
        self._measure = measure
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
        known = {name: value for name, value in self._measure(network).items() if math.isfinite(value)}
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
