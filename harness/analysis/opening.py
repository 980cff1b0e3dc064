"""A finished run, opened again: its record, its network with the final weights, and images to look at it on."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from harness.analysis.run import Run as Run
from harness.analysis.run import evenly as evenly
from harness.board.records import Record, find_entry, read_records
from harness.errors import HarnessError
from harness.progress import Reporter
from harness.run_data import build_network, cache_of, open_data, task_data
from harness.runs import WEIGHTS
from harness.submission import Submission, load_submission
from harness.training.engine import Engine
from harness.training.loop import seed_everything


def open_run(entry: str, seed: int | None, board: Path, runs: Path, images: int, reporter: Reporter) -> Run:
    """Open a run.

    Args:
        entry: Name of an entry of the board, or ``name@fingerprint``.
        seed: Which of its seeds; None means the first one.
        board: The leaderboard's folder.
        runs: Folder of run folders.
        images: Look at so many images of each task's evaluation split, evenly spaced in canonical order; at all of a
            smaller one.
        reporter: Shows progress.

    Raises:
        HarnessError: There is no such entry or seed, it was handed in as predictions, its folder or weights are missing
            or are not those of the record, or data is missing.
    """
    record = find_record(entry, seed, board)
    folder = runs / f"{record.fingerprint}-seed{record.seed}"
    submission = _submission(record, folder)
    state = _weights(record, folder)
    splits = open_data(submission)
    engine = Engine(submission.training.precision)
    if engine.world > 1:
        raise HarnessError(f"analyze: works in one process, and {engine.world} were started; start it without torchrun")
    seed_everything(record.seed)
    network = build_network(submission, splits)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[-1].strip()
        raise HarnessError(
            f"{folder / WEIGHTS}: these weights do not fit the network that this harness builds ({reason}); train again"
            " with harness submit --fresh"
        ) from None
    network.to(engine.device).eval()
    data = {}
    for task in submission.tasks:
        adapter = splits.evaluation[task.dataset]
        cache = cache_of(task, adapter, engine, reporter, submission.training.workers)
        one = task_data(submission, record.seed, splits, task.dataset, False, cache)
        one.rows = evenly(len(adapter), images)
        data[task.dataset] = one
    return Run(record, submission, folder, network, engine, splits, data, reporter)


def find_record(entry: str, seed: int | None, board: Path) -> Record:
    """The record of an entry and seed that a network was trained for. Raises HarnessError if there is none."""
    found = find_entry(read_records(board), entry)
    record = next((one for one in found if seed is None or one.seed == seed), None)
    if record is None:
        seeds = ", ".join(str(one.seed) for one in found)
        raise HarnessError(f"--seed {seed}: {found[0].entry} has no such seed on the board; it has {seeds}")
    if record.submission is None:
        raise HarnessError(
            f"{record.entry}: was handed in as predictions, so there is no network to look into; harness submit"
            " trains one"
        )
    return record


def _submission(record: Record, folder: Path) -> Submission:
    """The submission as the run's folder has it: the record names local weights by their hash, not by their place."""
    path = folder / "submission.yaml"
    if not path.exists():
        raise HarnessError(
            f"{folder}: the folder of this run is not here, and its weights are nowhere else; name the folder of runs"
            " with --runs, or train again with harness submit --fresh"
        )
    submission = load_submission(path)
    if submission.fingerprint() != record.fingerprint:
        raise HarnessError(
            f"{path}: has the fingerprint {submission.fingerprint()}, not {record.fingerprint} as the record; a card or"
            " the file changed since: bring it back, or train again with harness submit"
        )
    return submission


def _weights(record: Record, folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    mend = "train again with harness submit --fresh"
    if not path.exists():
        raise HarnessError(f"{path}: no such file, so there is no network to look into; {mend}")
    if record.weights is not None and hashlib.sha256(path.read_bytes()).hexdigest() != record.weights:
        raise HarnessError(f"{path}: these are not the weights that the record names; restore them, or {mend}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise HarnessError(f"{path}: cannot be read ({error}); {mend}") from None
