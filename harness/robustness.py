"""The stage after the clean scores: scores on corrupted images and on training images, as far as they are asked for."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from harness.atomic import write_bytes
from harness.board.schema import Robustness, TrainGap
from harness.data.corruptions.apply import Corruption
from harness.data.corruptions.config import VERSION, CorruptionsConfig
from harness.data.loading import TaskData
from harness.errors import HarnessError
from harness.evaluation.array_files import DAMAGED
from harness.evaluation.drops import mean_drop, train_gap
from harness.evaluation.metric import Result
from harness.models.network import MultiTaskNetwork
from harness.progress import Reporter
from harness.run_data import Splits, cache_of, task_data
from harness.scoring import rehearse, score
from harness.submission import Submission
from harness.training.engine import Engine
from harness.training.features import remember
from harness.training.inference import SUFFIX, predict


def measure(
    submission: Submission,
    seed: int,
    network: MultiTaskNetwork,
    engine: Engine,
    splits: Splits,
    evaluation_data: Callable[[str], TaskData],
    clean: Mapping[str, Result],
    folder: Path,
    reporter: Reporter,
) -> dict[str, dict[str, Any]]:
    """Score a trained network where it was not trained, and where it was. All processes.

    Every corrupted version leaves its statistics under ``robustness/`` of the run's folder and is not repeated; its
    predictions, which would take as much room as all the rest together many times over, go once they are scored.

    Args:
        submission: Says what is wanted.
        seed: The run's.
        network: Trained.
        engine: Device, precision and processes.
        splits: The data.
        evaluation_data: A task's evaluation split.
        clean: Scores on clean images by dataset name; in the main process.
        folder: The run's.
        reporter: Shows progress.

    Returns:
        By dataset name what goes into the task's result: ``robustness`` and ``train_gap``; in the main process.
    """
    asked = submission.evaluation
    found: dict[str, dict[str, Any]] = {task.dataset: {} for task in submission.tasks}
    stage = _Stage(submission, network, engine, folder, reporter)
    for task in submission.tasks if asked.corruptions is not None or asked.train_gap is not None else ():
        name = task.dataset
        # Images that are read once each would only fill the memory of features.
        data = remember(network, engine, evaluation_data(name), "none", reporter)
        corruptions = None if asked.corruptions is None else asked.corruptions.on(data.adapter.task)
        if corruptions is not None:
            files = stage.corrupted(name, data, corruptions)
            if engine.main:
                found[name]["robustness"] = _robustness(clean[name], files, corruptions)
        if asked.train_gap is not None:
            images = cache_of(task, splits.train[name], engine, reporter, submission.training.workers)
            seen = task_data(submission, seed, splits, name, True, images).picked(asked.train_gap)
            stage.score(name, seen, "train")
            if engine.main:
                found[name]["train_gap"] = _gap(clean[name], stage.file(name, "train"))
    return found


def check(submission: Submission, splits: Splits) -> None:
    """See to it before training that what is asked for can be scored after it.

    Raises:
        HarnessError: There are fewer training images than are to be scored, or their ground truth is not valid; or a
            task has places to be found, and nothing but what carries things away is asked for.
    """
    corruptions = submission.evaluation.corruptions
    for task in submission.tasks if corruptions is not None else ():
        kind = splits.evaluation[task.dataset].task
        if corruptions is not None and corruptions.on(kind) is None:
            raise HarnessError(
                f"evaluation.corruptions.kinds: {list(corruptions.kinds)} leaves nothing for {task.dataset} ({kind}):"
                " its targets would have to move with what is in the image; add another kind, e.g. glass_blur"
            )
    wanted = submission.evaluation.train_gap
    for task in submission.tasks if wanted is not None else ():
        count = len(task_data(submission, 0, splits, task.dataset, training=True))
        if submission.evaluation.limit is None and wanted is not None and wanted > count:
            raise HarnessError(
                f"evaluation.train_gap: {wanted}, but {task.dataset} is trained on {count:,} images; lower it to"
                f" {count} or less"
            )
        rehearse(splits.train[task.dataset])


def adopt_training(submission: Submission, seed: int, runs: Path, folder: Path, reporter: Reporter) -> None:
    """Take the weights of a finished run that differs in nothing but corruptions and train gap; in the main process.

    Args:
        submission: What is run.
        seed: Of the run.
        runs: Folder of run folders.
        folder: The run's; taken from nowhere if it holds finished weights already.
        reporter: Says that it was done.
    """
    plain = submission.plainly_scored()
    other = runs / f"{plain.fingerprint()}-seed{seed}"
    names = ("weights.safetensors", "training.json")  # the last one says that the first is whole
    if other == folder or (folder / names[-1]).exists() or not (other / names[-1]).exists():
        return
    for name in names:
        write_bytes(folder / name, (other / name).read_bytes())
    reporter.say(f"{submission.name}, seed {seed}: takes the weights of {other}, which differs in the scoring only")


class _Stage:
    """Predicts and scores versions of a task's images, each once."""

    def __init__(
        self, submission: Submission, network: MultiTaskNetwork, engine: Engine, folder: Path, reporter: Reporter
    ) -> None:
        self._submission, self._network, self._engine = submission, network, engine
        self._folder, self._reporter = folder, reporter

    def file(self, name: str, version: str) -> Path:
        """Where the statistics of a version lie."""
        return self._folder / "robustness" / name / f"{version}.npz"

    def corrupted(self, name: str, data: TaskData, config: CorruptionsConfig) -> list[Path]:
        """Score every version, in the order of kinds and severities; returns the files of statistics. All processes."""
        versions = [Corruption(kind, severity) for kind in config.kinds for severity in config.severities]
        files = [self.file(name, f"{one.kind}-{one.severity}") for one in versions]
        done = self._engine.from_main(lambda: [file.exists() for file in files])
        with self._reporter.bar(f"corruptions of {name}", len(files), sum(done)) as bar:
            for one, there in zip(versions, done, strict=True):
                if not there:
                    self.score(name, data.corrupted(one), f"{one.kind}-{one.severity}")
                    bar.advance(detail=f"{one.kind} {one.severity}")
        return files

    def score(self, name: str, data: TaskData, version: str) -> None:
        """Predict and score one version unless that is done. All processes."""
        file = self.file(name, version)
        if self._engine.from_main(file.exists):
            return
        path = self._folder / "predictions" / "corrupted" / name / f"{version}{SUFFIX[data.adapter.task]}"
        if not self._engine.from_main(path.exists):
            batch_size, workers = self._submission.evaluation.batch_size, self._submission.training.workers
            # In a log, one line for all versions will do.
            quiet = self._reporter if self._reporter.console.is_terminal else Reporter(quiet=True)
            predict(self._network, self._engine, name, data, path, batch_size, quiet, workers)
        if self._engine.main:
            stream = io.BytesIO()
            np.savez_compressed(stream, **score(data.adapter, path, data.rows).statistics)  # type: ignore[arg-type]
            write_bytes(file, stream.getvalue())
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            with suppress(OSError):  # others may lie there
                path.parent.rmdir()


def _robustness(clean: Result, files: list[Path], config: CorruptionsConfig) -> Robustness:
    drop = mean_drop(clean, (_read(type(clean), file) for file in files))
    step = len(config.severities)
    rows = [drop.values[start : start + step] for start in range(0, len(files), step)]
    return Robustness(
        version=VERSION,
        kinds=list(config.kinds),
        severities=list(config.severities),
        values=dict(zip(config.kinds, rows, strict=True)),  # type: ignore[arg-type]
        drop=drop.drop,
        low=drop.interval.low,
        high=drop.interval.high,
        relative=drop.relative,
        draws=[round(float(value), 9) for value in drop.draws],
    )


def _gap(clean: Result, file: Path) -> TrainGap:
    seen = _read(type(clean), file)
    gap = train_gap(seen, clean)
    return TrainGap(
        images=len(seen.ids),
        value=float(seen.reduce()[seen.main]),
        gap=gap.gap,
        low=gap.interval.low,
        high=gap.interval.high,
        chosen=hashlib.sha256("\n".join(map(str, seen.ids)).encode()).hexdigest(),
        draws=[round(float(value), 9) for value in gap.draws],
    )


def _read(kind: type[Result], file: Path) -> Result:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return kind.from_statistics(dict(arrays))
    except (*DAMAGED, OSError, HarnessError) as error:
        raise HarnessError(f"{file}: cannot be read as statistics ({error}); remove it, and it is made again") from None
