"""One run: a submission and a seed, from data to record. Every stage leaves its result on disk and is not repeated."""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors

from harness import provenance, robustness
from harness.analysis import subsets
from harness.atomic import locked, make_folder, write_bytes, write_json, write_text
from harness.board.names import check_name
from harness.board.records import Cost, Provenance, Record, read_record, write_record
from harness.data.loading import TaskData
from harness.data.transforms import derive_seed
from harness.errors import HarnessError
from harness.gallery import Scored, make_gallery
from harness.models.network import FOR_TRAINING, MultiTaskNetwork
from harness.progress import Reporter
from harness.relatedness import measure as measure_relatedness
from harness.run_data import Splits, build_network, cache_of, open_data, selection_data, shared_images, task_data
from harness.scoring import score, task_result, unrankable_reasons
from harness.shared_weights import require_shared_weights
from harness.single_task import fingerprints
from harness.submission import Submission
from harness.trained import TRAINED, Trained, read_trained
from harness.training import checkpoints
from harness.training.costs import macs_per_image
from harness.training.devices import check_batches
from harness.training.engine import Engine
from harness.training.features import remember
from harness.training.inference import SUFFIX, predict
from harness.training.journal import Journal
from harness.training.loop import seed_everything, train
from harness.training.meters import peak_memory
from harness.training.placeholders.pools import open_pools
from harness.training.planning import plan
from harness.training.tracking import Tracker

WEIGHTS = "weights.safetensors"
EVALUATED = "evaluation.json"


def run(submission: Submission, seed: int, runs: Path, board: Path, reporter: Reporter, fresh: bool = False) -> Record:
    """Train, predict, score and record; finished stages are taken from disk.

    Where several processes work on the run, all of them call this; the main one alone prints and writes.

    Args:
        submission: What to run.
        seed: Of the weights, the data order and the augmentation.
        runs: Folder of run folders.
        board: The leaderboard's folder.
        reporter: Shows progress.
        fresh: Forget what an earlier run of the same submission and seed left.

    Returns:
        The record, which is stored under `board`.

    Raises:
        HarnessError: Data is missing or not valid, or training diverged.
    """
    identity = f"{submission.fingerprint()}-seed{seed}"
    engine = Engine(submission.training.precision)
    check_batches(submission, engine.world)
    reporter = reporter if engine.main else Reporter(quiet=True)
    if not fresh:
        stored = engine.from_main(lambda: _stored(board, submission, seed))
        if stored is not None:
            reporter.say(f"{submission.name}, seed {seed}: already on the board")
            return stored
    splits = open_data(submission)
    robustness.check(submission, splits)
    folder = runs / identity
    with ExitStack() as stack:
        if engine.main:
            make_folder(board / "records")  # told before hours of training
            check_name(board, submission.name)
            make_folder(folder)
            stack.enter_context(locked(folder))  # another command that is given the same run waits and finds it done
            if fresh:
                _forget(folder)
        stored = None if fresh else engine.from_main(lambda: _stored(board, submission, seed))
        if stored is not None:
            return stored
        reporter.say(f"{submission.name}, seed {seed}: {folder}")
        if engine.main and not fresh:
            robustness.adopt_training(submission, seed, runs, folder, reporter)
        made = _run(submission, seed, engine, splits, folder, reporter)
        if made is not None:
            record, statistics, gallery = made
            write_record(board, record, statistics, fresh, gallery)
        return engine.from_main(lambda: made[0])  # type: ignore[index]


def _stored(board: Path, submission: Submission, seed: int) -> Record | None:
    return read_record(board, f"{submission.name}/{submission.fingerprint()}-seed{seed}")


def _run(
    submission: Submission, seed: int, engine: Engine, splits: Splits, folder: Path, reporter: Reporter
) -> tuple[Record, dict[str, dict[str, Any]], dict[str, bytes]] | None:
    """Record, statistics and pictures, in the main process."""
    resolved = submission.resolved()
    if engine.main:
        write_text(folder / "submission.yaml", yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
    seed_everything(seed)
    network = build_network(submission, splits)
    if not engine.main:  # all start from the same weights, but dropout must not drop the same everywhere
        seed_everything(derive_seed("process", seed, engine.rank) % 2**32)
    tracking = submission.tracking.wandb if engine.main else "disabled"
    tracker = Tracker(tracking, folder, folder.name, f"{submission.name} seed {seed}", resolved)

    @cache  # what is counted and what is predicted is the same data
    def evaluation_data(name: str) -> TaskData:
        config = submission.task(name)
        images = cache_of(config, splits.evaluation[name], engine, reporter, submission.training.workers)
        return task_data(submission, seed, splits, name, False, images)

    trained = _train(submission, seed, network, engine, splits, evaluation_data, folder, reporter, tracker)

    tasks, results = {}, {}
    scored: dict[str, Scored] = {}
    seconds = _Seconds(folder / EVALUATED)
    for config in submission.tasks:
        name = config.dataset
        adapter = splits.evaluation[name]
        path = folder / "predictions" / f"{name}{SUFFIX[adapter.task]}"
        if not engine.from_main(path.exists):
            begun = time.perf_counter()
            mode, workers = submission.model.backbone.feature_cache, submission.training.workers
            data = remember(network, engine, evaluation_data(name), mode, reporter, workers=workers)
            predict(network, engine, name, data, path, submission.evaluation.batch_size, reporter, workers)
            if engine.main:
                seconds.add(f"predicting {name}", time.perf_counter() - begun)
        if not engine.main:
            continue
        begun = time.perf_counter()
        results[name] = result = score(adapter, path)
        seconds.add(f"scoring {name}", time.perf_counter() - begun)
        tasks[name] = task_result(adapter, result, path, config.preprocessing())
        scored[name] = adapter, path, result
    further = robustness.measure(submission, seed, network, engine, splits, evaluation_data, results, folder, reporter)
    if trained is None:  # not the main process
        return None
    tasks = {name: task.model_copy(update=further[name]) for name, task in tasks.items()}
    opened = [*splits.train.values(), *splits.evaluation.values(), *splits.selection.values()]
    reasons = sorted(set(unrankable_reasons(opened, submission.evaluation.limit)))
    record = Record(
        name=submission.name,
        fingerprint=submission.fingerprint(),
        seed=seed,
        submission=submission.published(),
        tasks=tasks,
        weights=hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(),
        selected_step=trained.selected_step,
        curves=trained.curves,
        baselines=fingerprints(submission),
        subsets=subsets.listed(submission),
        stages=trained.stages,
        warnings=[*trained.warnings, *shared_images(submission.cards(), splits), *_skipped(trained.skipped)],
        cost=Cost(
            parameters=sum(n for part, n in network.parameters_by_part().items() if part not in FOR_TRAINING),
            parameters_by_part=network.parameters_by_part(),
            macs=trained.macs,
            train_seconds=trained.seconds,
            train_seconds_by_phase=trained.phases,
            evaluation_seconds=seconds.total,
            steps=trained.steps,
            images_per_second=trained.images / max(trained.seconds, 1e-9),
            peak_memory_bytes=max(trained.memory, peak_memory()),
            peak_gpu_memory_bytes=trained.gpu_memory,
            energy_joules=trained.joules,
        ),
        provenance=_provenance(trained.started),
        rankable=not reasons,
        unrankable_because=reasons,
    )
    looked_at = {name: evaluation_data(name) for name in tasks}
    record = measure_relatedness(record, submission, network, engine, splits, looked_at, folder, reporter)
    gallery = make_gallery(scored)
    tracker.finish(record, results, gallery)
    return record, {name: result.statistics for name, result in results.items()}, gallery


def _train(
    submission: Submission,
    seed: int,
    network: MultiTaskNetwork,
    engine: Engine,
    splits: Splits,
    evaluation_data: Callable[[str], TaskData],
    folder: Path,
    reporter: Reporter,
    tracker: Tracker,
) -> Trained | None:
    """Train unless the folder holds finished weights.

    Either way `network` ends with them in the main process, and on the engine's device. Elsewhere the result is None.
    """
    done = folder / TRAINED
    if engine.from_main(done.exists):
        network.to(engine.device)
        if not engine.main:
            return None
        try:
            network.load_state_dict(load_file(folder / WEIGHTS))
            return read_trained(folder)
        except (SafetensorError, RuntimeError, OSError, ValueError) as error:
            raise HarnessError(
                f"{folder}: the finished run's {WEIGHTS} or {TRAINED} cannot be read "
                f"({str(error).partition(chr(10))[0]}); restore it, or train again with harness submit --fresh"
            ) from None
    started = folder / "started"
    if engine.main and not started.exists():
        write_text(started, datetime.now(UTC).isoformat(timespec="seconds"))
    opened = {name: evaluation_data(name) for name in splits.train}
    macs = {name: macs_per_image(network, name, opened[name]) for name in (opened if engine.main else ())}
    data, selection = {}, {}
    for task in submission.tasks:
        name, workers = task.dataset, submission.training.workers
        images = cache_of(task, splits.train[name], engine, reporter, workers)
        data[name] = task_data(submission, seed, splits, name, True, images)
        if name in splits.selection:
            images = cache_of(task, splits.selection[name], engine, reporter, workers)
            selection[name] = selection_data(submission, seed, splits, name, images)
    planned = plan(submission, data)
    engine.from_main(lambda: require_shared_weights(submission, splits, data, planned))
    network.to(engine.device)
    pools = open_pools(submission, seed, splits, network, engine, data, folder, reporter)
    for task in submission.tasks:
        visits = planned.batches()[task.dataset] * task.batch_size
        mode, workers = submission.model.backbone.feature_cache, submission.training.workers
        data[task.dataset] = remember(network, engine, data[task.dataset], mode, reporter, visits, workers)
    scored = opened if planned.ends else None
    journal = Journal(folder, f"{submission.name}, seed {seed}", tracker)
    try:
        if engine.main:
            progress = train(
                submission,
                network,
                engine,
                data,
                folder,
                reporter,
                journal.add,
                selection,
                scored,
                journal.resume,
                pools=pools,
            )
        else:
            train(
                submission,
                network,
                engine,
                data,
                folder,
                reporter,
                selection_data=selection,
                evaluation_data=scored,
                pools=pools,
            )
            return None
    finally:
        if engine.main:
            journal.draw()
    for looked in ("selection", "stages"):
        shutil.rmtree(folder / looked, ignore_errors=True)
    write_bytes(folder / WEIGHTS, to_safetensors({k: v.contiguous().cpu() for k, v in network.state_dict().items()}))
    summary = {
        "steps": progress.step,
        "stages": [
            {"after": end, "trained": planned.stage(number), "values": values}
            for number, (end, values) in enumerate(zip(planned.ends, [*progress.stages, {}], strict=False))
        ],
        "selected_step": progress.best_step if selection else None,
        "warnings": [progress.ended] if progress.ended else [],
        "seconds": progress.seconds,
        "phases": progress.phases,
        "memory": progress.memory,
        "gpu_memory": progress.gpu_memory,
        "joules": progress.joules,
        "images": progress.images,
        "skipped": progress.skipped,
        "curves": progress.curves,
        "macs": macs,
        "started": started.read_text(),
    }
    write_json(done, summary)
    checkpoints.remove(folder)
    return read_trained(folder)


class _Seconds:
    """Durations by name in a file, so that an interrupted evaluation's costs sum up.

    A file that cannot be read counts for nothing: no number but the cost depends on it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            found = orjson.loads(path.read_bytes())
        except (OSError, ValueError):
            found = None
        pairs = found.items() if isinstance(found, dict) else ()
        self._known: dict[str, float] = {name: value for name, value in pairs if type(value) in (int, float)}

    def add(self, name: str, seconds: float) -> None:
        self._known[name] = seconds
        write_json(self._path, self._known)

    @property
    def total(self) -> float:
        return sum(self._known.values())


def _skipped(sentences: list[str]) -> list[str]:
    """What the record says of training images that could not be read; folders are left out."""
    if not sentences:
        return []
    names = ", ".join(Path(sentence.partition(": ")[0]).name for sentence in sentences[:5])
    return [f"{len(sentences)} training images could not be read and were replaced by others: {names}"]


def _forget(folder: Path) -> None:
    """Remove a run's results, deepest first; the folder itself is locked and stays."""
    for path in sorted(folder.rglob("*"), key=lambda p: len(p.parts), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()


def _provenance(started: str) -> Provenance:
    commit, dirty = provenance.commit()
    return Provenance(
        version=provenance.version(),
        commit=commit,
        dirty=dirty,
        packages=provenance.packages(),
        python=".".join(map(str, sys.version_info[:3])),
        platform=sys.platform,
        hardware=provenance.hardware(),
        threads=torch.get_num_threads(),
        started=started,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        command=provenance.command(sys.argv[1:]),
    )
