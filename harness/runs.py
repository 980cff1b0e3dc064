"""One run: a submission and a seed, from data to record. Every stage leaves its result on disk and is not repeated."""

from __future__ import annotations

import hashlib
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import torch
import yaml
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors

from harness import provenance
from harness.atomic import locked, write_bytes, write_json, write_text
from harness.board.records import Cost, Provenance, Record, read_records, write_record
from harness.cards import DatasetCard
from harness.data import open_split
from harness.data.config import TaskConfig
from harness.data.image_cache import ImageCache, image_cache
from harness.data.loading import TaskData
from harness.data.samples import Adapter
from harness.errors import HarnessError
from harness.models.class_names import class_names
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.progress import Reporter
from harness.scoring import rehearse, score, task_result, unrankable_reasons
from harness.submission import Submission
from harness.training import checkpoints
from harness.training.costs import macs_per_image
from harness.training.engine import Engine
from harness.training.features import remember
from harness.training.inference import SUFFIX, predict
from harness.training.loop import seed_everything, total_steps, train
from harness.training.tracking import Tracker

WEIGHTS = "weights.safetensors"
TRAINED = "training.json"


@dataclass(frozen=True)
class Splits:
    """The data of a run, by dataset name."""

    train: dict[str, Adapter]
    evaluation: dict[str, Adapter]


def open_data(submission: Submission) -> Splits:
    """Open the training and evaluation split of every task.

    Raises:
        HarnessError: Data is missing or not valid.
    """
    limit = submission.evaluation.limit
    cards = submission.cards()
    splits = Splits(
        {name: open_split(card, "train", limit) for name, card in cards.items()},
        {name: open_split(card, card.evaluation_split, limit) for name, card in cards.items()},
    )
    for name, adapter in splits.evaluation.items():
        if adapter.classes != splits.train[name].classes:
            raise HarnessError(
                f"card {name}: splits 'train' and {adapter.split!r} list different classes; they must be the same"
            )
        rehearse(adapter)
    return splits


def build_network(submission: Submission, splits: Splits) -> MultiTaskNetwork:
    """The network for the classes and words of the data, drawn from the current random state."""
    cards = submission.cards()
    specs = {
        name: TaskSpec(
            adapter.task,
            len(adapter.classes),
            len(getattr(adapter, "question_vocabulary", ())),
            class_names(cards[name], adapter.classes) if adapter.task == "classification" else (),
        )
        for name, adapter in splits.train.items()
    }
    # Channels last is the faster layout of convolutions on CPUs and GPUs alike.
    return MultiTaskNetwork(submission.model, specs).to(memory_format=torch.channels_last)


def run(submission: Submission, seed: int, runs: Path, board: Path, reporter: Reporter, fresh: bool = False) -> Record:
    """Train, predict, score and record; finished stages are taken from disk.

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
    if not fresh:
        stored = _stored(board, submission, seed)
        if stored is not None:
            reporter.say(f"{submission.name}, seed {seed}: already on the board")
            return stored
    splits = open_data(submission)
    folder = runs / identity
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):  # a second process that is given the same run waits and then finds it done
        if fresh:
            _forget(folder)
        elif (stored := _stored(board, submission, seed)) is not None:
            return stored
        reporter.say(f"{submission.name}, seed {seed}: {folder}")
        record, statistics = _run(submission, seed, splits, folder, reporter)
        write_record(board, record, statistics, replace=fresh)
    return record


def _stored(board: Path, submission: Submission, seed: int) -> Record | None:
    wanted = f"{submission.name}/{submission.fingerprint()}-seed{seed}"
    return next((record for record in read_records(board) if record.id == wanted), None)


def _run(
    submission: Submission, seed: int, splits: Splits, folder: Path, reporter: Reporter
) -> tuple[Record, dict[str, dict[str, Any]]]:
    resolved = submission.resolved()
    write_text(folder / "submission.yaml", yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
    seed_everything(seed)
    network = build_network(submission, splits)
    engine = Engine(submission.training.precision)
    tracker = Tracker(submission.tracking.wandb, folder, folder.name, f"{submission.name} seed {seed}", resolved)
    trained = _train(submission, seed, network, engine, splits, folder, reporter, tracker)

    begun = time.perf_counter()
    tasks, statistics = {}, {}
    for config in submission.tasks:
        name = config.dataset
        adapter = splits.evaluation[name]
        path = folder / "predictions" / f"{name}{SUFFIX[adapter.task]}"
        if not path.exists():
            workers = submission.training.workers
            data = task_data(submission, seed, splits, name, False, cache_of(config, adapter, reporter, workers))
            data = remember(network, engine, data, submission.model.backbone.feature_cache, reporter, workers=workers)
            predict(network, engine, name, data, path, submission.evaluation.batch_size, reporter, workers)
        result = score(adapter, path)
        tasks[name] = task_result(adapter, result, path, config.preprocessing())
        statistics[name] = result.statistics
    reasons = unrankable_reasons([*splits.train.values(), *splits.evaluation.values()], submission.evaluation.limit)
    record = Record(
        name=submission.name,
        fingerprint=submission.fingerprint(),
        seed=seed,
        submission=submission.published(),
        tasks=tasks,
        weights=hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(),
        curves=trained["curves"],
        warnings=[*shared_images(submission.cards(), splits), *_skipped(trained["skipped"])],
        cost=Cost(
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            parameters_by_part=network.parameters_by_part(),
            macs=trained["macs"],
            train_seconds=trained["seconds"],
            evaluation_seconds=time.perf_counter() - begun,
            steps=total_steps(submission),
            images_per_second=trained["images"] / max(trained["seconds"], 1e-9),
            peak_memory_bytes=_peak_memory(),
        ),
        provenance=_provenance(trained["started"]),
        rankable=not reasons,
        unrankable_because=reasons,
    )
    tracker.finish({f"{name}/{key}": value for name, task in tasks.items() for key, value in task.metrics.items()})
    return record, statistics


def _train(
    submission: Submission,
    seed: int,
    network: MultiTaskNetwork,
    engine: Engine,
    splits: Splits,
    folder: Path,
    reporter: Reporter,
    tracker: Tracker,
) -> dict[str, Any]:
    """Train unless the folder holds finished weights; either way `network` ends with them, on the engine's device."""
    done = folder / TRAINED
    if done.exists():
        network.load_state_dict(load_file(folder / WEIGHTS))
        network.to(engine.device)
        return orjson.loads(done.read_bytes())
    started = folder / "started"
    if not started.exists():
        write_text(started, datetime.now(UTC).isoformat(timespec="seconds"))
    macs = {
        name: macs_per_image(network, name, task_data(submission, seed, splits, name, training=False))
        for name in splits.train
    }
    data = {}
    for task in submission.tasks:
        cache = cache_of(task, splits.train[task.dataset], reporter, submission.training.workers)
        data[task.dataset] = task_data(submission, seed, splits, task.dataset, True, cache)
    network.to(engine.device)
    for task in submission.tasks:
        visits = total_steps(submission) * task.batch_size
        mode, workers = submission.model.backbone.feature_cache, submission.training.workers
        data[task.dataset] = remember(network, engine, data[task.dataset], mode, reporter, visits, workers)

    journal = folder / "log.jsonl"
    _drop_unsaved_steps(journal, folder)

    def log(step: int, point: Mapping[str, float]) -> None:
        with journal.open("ab") as file:
            file.write(orjson.dumps({"step": step, **point}, option=orjson.OPT_APPEND_NEWLINE))
        tracker.log(step, point)

    progress = train(submission, network, engine, data, folder, reporter, log)
    write_bytes(folder / WEIGHTS, to_safetensors({k: v.contiguous().cpu() for k, v in network.state_dict().items()}))
    summary = {
        "seconds": progress.seconds,
        "images": progress.images,
        "skipped": progress.skipped,
        "curves": progress.curves,
        "macs": macs,
        "started": started.read_text(),
    }
    write_json(done, summary)
    checkpoints.remove(folder)
    return orjson.loads(done.read_bytes())


def _drop_unsaved_steps(journal: Path, folder: Path) -> None:
    """Cut the journal back to the checkpoint that training continues from, so that no step is told twice."""
    if journal.exists():
        state = checkpoints.load(folder)
        last = state["progress"]["step"] if state is not None else 0
        lines = [line for line in journal.read_bytes().splitlines() if line.endswith(b"}")]
        write_bytes(journal, b"".join(line + b"\n" for line in lines if orjson.loads(line)["step"] <= last))


def cache_of(config: TaskConfig, adapter: Adapter, reporter: Reporter, workers: int) -> ImageCache | None:
    """The image cache that a task asks for, made if it is not there."""
    if config.cache is None:
        return None
    interpolation: Any = config.interpolation  # a submission that was read has no `auto`
    return image_cache(adapter, config.cache, reporter, workers, interpolation)


def task_data(
    submission: Submission, seed: int, splits: Splits, name: str, training: bool, cache: ImageCache | None = None
) -> TaskData:
    """One task's split as the loader reads it: training with augmentation, or evaluation without."""
    config = next(task for task in submission.tasks if task.dataset == name)
    adapter = (splits.train if training else splits.evaluation)[name]
    words = getattr(splits.train[name], "question_vocabulary", ())
    bad = submission.training.on_bad_image
    return TaskData(adapter, config, training, seed, words, submission.model.text.max_words, cache, bad)


def _skipped(sentences: list[str]) -> list[str]:
    """What the record says of training images that could not be read; folders are left out."""
    if not sentences:
        return []
    names = ", ".join(Path(sentence.partition(": ")[0]).name for sentence in sentences[:5])
    return [f"{len(sentences)} training images could not be read and were replaced by others: {names}"]


def shared_images(cards: Mapping[str, DatasetCard], splits: Splits) -> list[str]:
    """Sentences about images that one task trains on and another is evaluated on.

    COCO and VQA v2 number the same photographs alike (VQA v2's validation images lie inside COCO's train2017), so
    image ids tell. Other layouts have file names that mean nothing across data sets.
    """
    numbered = [name for name, card in cards.items() if card.adapter in ("coco", "vqa")]
    found = []
    for trained in numbered:
        for evaluated in numbered:
            if trained != evaluated:
                common = len(set(splits.train[trained].ids) & set(splits.evaluation[evaluated].ids))
                if common:
                    found.append(
                        f"{common} images that {evaluated} is evaluated on have the ids of training images of {trained}"
                    )
    return found


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
        command=_command(),
    )


def _command() -> str:
    """The command line as one would type it; folders outside the current one are shortened to their last part."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv]
    return " ".join(words)


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
