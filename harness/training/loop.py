"""The training loop: step after step, and what falls due between steps."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch

from harness.data.batches import Batch
from harness.data.loading import TaskData
from harness.data.unlabelled import UnlabelledData
from harness.models.network import MultiTaskNetwork
from harness.progress import Bar, Reporter
from harness.submission import Submission
from harness.training.compiling import as_written, compiled
from harness.training.engine import Engine
from harness.training.finite import any_process
from harness.training.gate_curves import GateCurves
from harness.training.heap import keep_freed_memory
from harness.training.measuring import Measure
from harness.training.meters import Meters
from harness.training.placeholders.starting import begin_tokens
from harness.training.planning import plan
from harness.training.recomputing import recomputing
from harness.training.resuming import Resumable
from harness.training.selection import Selection
from harness.training.signals import stop_signals
from harness.training.state import Progress
from harness.training.stepping import Stepper, Taken

Log = Callable[[int, Mapping[str, float]], None]


def seed_everything(seed: int) -> None:
    """Seed every global random stream and ask for deterministic kernels."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries may draw from it
    torch.manual_seed(seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Deterministic mode also fills fresh memory with NaN, a tenth of a small network's step; nothing here reads it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


def train(
    submission: Submission,
    network: MultiTaskNetwork,
    engine: Engine,
    data: Mapping[str, TaskData],
    folder: Path,
    reporter: Reporter,
    log: Log = lambda step, point: None,
    selection_data: Mapping[str, TaskData] | None = None,
    evaluation_data: Mapping[str, TaskData] | None = None,
    begin: Callable[[Progress], None] = lambda progress: None,
    pools: Mapping[str, UnlabelledData] | None = None,
) -> Progress:
    """Train a network in place, from the newest checkpoint in `folder` if there is one.

    Args:
        submission: The recipe.
        network: Freshly built from the run's seed; ends with the final weights (averaged or chosen, where the recipe
            says so) in the main process.
        engine: Device and precision.
        data: Training split by dataset name.
        folder: Where checkpoints go.
        reporter: Shows progress.
        log: Called with every new point of the learning curves.
        selection_data: Selection split by dataset name, where the recipe selects.
        evaluation_data: Evaluation split by dataset name, where every stage of the regime is to be scored. Nothing is
            chosen by it.
        begin: Called once, before `log`, with what the checkpoint says was done.
        pools: Placeholder samples by dataset name, where the recipe has them.

    Returns:
        What was done.

    Raises:
        HarnessError: A loss or gradient is not finite, or an image cannot be read.
        KeyboardInterrupt: Ctrl-C or a termination signal came; the work so far is in the checkpoint.
    """
    keep_freed_memory()
    run = _Run(submission, network, engine, data, folder, reporter, selection_data, evaluation_data)
    progress = run.progress
    if not progress.step:
        begin_tokens(network, engine, data)
    begin(progress)
    if progress.step:
        reporter.say(f"resuming at step {progress.step} of {run.steps}")
    run.stepper.open(pools or {}, progress.step)
    network.train()
    with (
        stop_signals() as stopped,
        compiled(network, submission.training.compile, run.stepper.balancer.repeats),
        recomputing(network, submission.training.gradient_checkpointing),
        reporter.bar("training", run.steps, progress.step) as bar,
    ):
        run.go(stopped, bar, log)
    run.choose()
    network.eval()
    return progress


class _Run:
    """A run in progress. All processes alike; the arguments are those of `train`."""

    def __init__(
        self,
        submission: Submission,
        network: MultiTaskNetwork,
        engine: Engine,
        data: Mapping[str, TaskData],
        folder: Path,
        reporter: Reporter,
        selection_data: Mapping[str, TaskData] | None,
        evaluation_data: Mapping[str, TaskData] | None,
    ) -> None:
        self._config, self._network, self._engine = submission.training, network, engine
        self._folder, self._reporter = folder, reporter
        self._sizes = {task.dataset: task.batch_size for task in submission.tasks}
        self._plan = plan(submission, data)
        self.steps = self._plan.steps
        self.stepper = Stepper(submission, network, engine, data, self._plan)

        def measure(what: Mapping[str, TaskData], name: str) -> Measure:
            batch_size, workers = submission.evaluation.batch_size, submission.training.workers
            return Measure(what, batch_size, workers, folder / name, engine, reporter)

        self._selection = None
        if self._config.selection is not None and selection_data is not None:
            self._selection = Selection(self._config.selection, measure(selection_data, "selection"), engine, reporter)
        self._stages = measure(evaluation_data, "stages") if evaluation_data is not None else None
        stepper = self.stepper
        self._state = Resumable(
            *(network, stepper.balancer, stepper.optimizer, engine, stepper.average),
            *(self._selection, stepper.substituting, self._config.checkpoints_kept),
        )
        self.progress = self._state.resume(folder, reporter)

    def go(self, stopped: Sequence[int], bar: Bar, log: Log) -> None:
        """Train to the end.

        Args:
            stopped: Gets a signal to stop, when one comes.
            bar: Shows the steps.
            log: As `train` takes it.

        Raises:
            KeyboardInterrupt: A signal came; the work so far is in the checkpoint.
        """
        progress, self._stopped, self._log = self.progress, stopped, log
        self._meters = Meters(self._engine, progress)
        self._gates = GateCurves(self._network, self._engine, self._config.compile)
        kept = progress.step
        while True:
            self._meters.watch.start()
            self._score_stage()
            self._select()
            if self._over:
                break
            if progress.step % self._config.checkpoint_every == 0 and progress.step != kept:
                self._keep()
                kept = progress.step
                self._meters.watch.start()
            taken = self.stepper.take(progress.step, self._meters.watch, self._gates)
            self._count(taken)
            bar.advance(values=taken.losses, images={name: self._sizes[name] for name in taken.tasks})
            stop = self._asked_to_stop_or_late()
            self._write_losses(taken.points)
            self._stop_if(stop)
        self._meters.settle()

    def choose(self) -> None:
        """Give the network the weights that the run ends in."""
        if self._selection is not None:
            self._selection.choose(self._network)
        elif self.stepper.average is not None:
            self.stepper.average.install()

    @property
    def _over(self) -> bool:
        return self.progress.step >= self.steps or bool(self.progress.ended)

    def _score_stage(self) -> None:
        """After a stage of the regime but the last, score the network on the evaluation splits."""
        progress = self.progress
        if self._stages is None or not self._plan.due(progress.step, len(progress.stages)):
            return
        with self._averaged(), as_written(self._network):
            progress.stages.append(self._stages(self._network))
        self._meters.watch.lap("stages")
        self._write({f"stage/{name}": value for name, value in progress.stages[-1].items()})
        self._stop_if(*self._asked_to_stop())

    def _select(self) -> None:
        """Where it is due, look at the selection splits."""
        if self._selection is None or not self._selection.due(self.progress, self._over):
            return
        with self._averaged(), as_written(self._network):
            point = self._selection.look(self._network, self.progress)
        self._meters.watch.lap("selection")
        self._write(point)
        self._write_losses()
        self._stop_if(*self._asked_to_stop())

    def _averaged(self) -> AbstractContextManager[None]:
        return self.stepper.average.installed() if self.stepper.average is not None else nullcontext()

    def _count(self, taken: Taken) -> None:
        progress = self.progress
        progress.step += 1
        progress.take(taken.losses)
        progress.images += taken.images
        for sentence in _skipped(self._engine, taken.batches) if self._config.on_bad_image == "skip" else ():
            if sentence not in progress.skipped:
                progress.skipped.append(sentence)
                self._reporter.say(f"skipped: {sentence}")

    def _asked_to_stop(self, *flags: bool) -> list[bool]:
        """Whether any process is asked to stop, and for each flag whether it is set in any process."""
        return any_process(self._engine, bool(self._stopped) or self._engine.orphaned, *flags)

    def _asked_to_stop_or_late(self) -> bool:
        """Whether any process is asked to stop; where time is up, the run ends."""
        limit, progress = self._config.max_minutes, self.progress
        stop, late = self._asked_to_stop(limit is not None and self._meters.seconds >= 60 * limit)
        if late and progress.step < self.steps:
            progress.ended = (
                f"training ended after step {progress.step} of {self.steps}: its time was up"
                f" (training.max_minutes: {limit:g})"
            )
        return stop

    def _stop_if(self, wanted: bool) -> None:
        if wanted:
            self._keep()
            raise KeyboardInterrupt

    def _keep(self) -> None:
        self._meters.settle()
        self._state.keep(self._folder, self.progress)

    def _write_losses(self, also: Mapping[str, float] | None = None) -> None:
        """A point of the learning curves, where one is due or there is more to tell."""
        also, progress = also or {}, self.progress
        if progress.pending and (progress.step % self._config.log_every == 0 or self._over):
            self._write({**progress.losses(), "learning_rate": self.stepper.rate(progress.step - 1), **also})
        elif also:
            self._write(also)

    def _write(self, point: Mapping[str, float]) -> None:
        self.progress.draw(point)
        self.progress.points += 1
        self._log(self.progress.step, {**point, **self._gates.take(), **self._meters.point()})


def _skipped(engine: Engine, batches: Iterable[Batch]) -> list[str]:
    """Sentences of all processes, at the main one."""
    return [one for found in engine.gather([one for batch in batches for one in batch.skipped]) for one in found]
