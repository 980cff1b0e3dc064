"""The part of the report that comes from a board: transfer, leave one out, Shapley values, and what is missing."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness.analysis import transfer
from harness.analysis.subsets import Subset, subsets, write
from harness.board.evidence import Evidence
from harness.board.records import read_records
from harness.submission import Submission


def interaction(
    submission: Submission, seeds: Sequence[int], board: Path, runs: Path, folder: Path, draws: int
) -> dict[str, Any]:
    """How the tasks of a submission get along.

    The submissions of missing subsets are written to ``subsets/`` in the folder, with the commands that train them.

    Args:
        submission: Of several tasks.
        seeds: Of the entry: missing subsets are to be trained with these.
        board: The leaderboard's folder.
        runs: Folder of run folders.
        folder: Where the analysis goes.
        draws: Of the bootstrap.

    Returns:
        ``tasks``, ``transfer``, ``leave_one_out`` and ``shapley`` (``<source>.<target>``: ``value``, ``low``, ``high``,
        ``seeds``, or None), ``total`` and ``loss_gain`` by task, ``subsets[]`` (``tasks``, ``entry``, ``seeds`` on the
        board, ``problem``), and ``missing`` (``runs``, ``transfer`` and ``all``: commands).

    Raises:
        HarnessError: There are too many tasks, or statistics on the board are damaged.
    """
    wanted = subsets(submission)
    known = transfer.records_of(wanted, read_records(board))
    evidence = Evidence(board, draws, cached=False)
    tasks = [task.dataset for task in submission.tasks]
    missing = {
        names: one
        for names, one in wanted.items()
        if isinstance(one, Submission) and not set(seeds) <= known.get(names, {}).keys()
    }
    files = write(missing, seeds, folder / "subsets")
    return {
        "tasks": tasks,
        "transfer": transfer.matrix(tasks, transfer.pair_terms, known, evidence),
        "leave_one_out": transfer.matrix(tasks, partial(transfer.leave_one_out_terms, tasks), known, evidence),
        "shapley": transfer.matrix(tasks, partial(transfer.shapley_terms, tasks), known, evidence),
        "total": {task: transfer.estimated(transfer.total_terms(tasks, task), task, known, evidence) for task in tasks},
        "loss_gain": transfer.loss_gains(tasks, known),
        "subsets": [_row(names, one, known, tasks) for names, one in wanted.items()],
        "missing": _commands(files, seeds, known, missing, board, runs),
    }


def _row(names: Subset, one: Submission | str, known: transfer.Known, tasks: Sequence[str]) -> dict[str, Any]:
    records = known.get(names, {})
    return {
        "tasks": [task for task in tasks if task in names],
        "entry": next(iter(records.values())).entry if records else None,
        "seeds": sorted(records),
        "problem": one if isinstance(one, str) else None,
    }


def _commands(
    files: Sequence[Path],
    seeds: Sequence[int],
    known: transfer.Known,
    missing: Mapping[Subset, Submission],
    board: Path,
    runs: Path,
) -> dict[str, Any]:
    """What trains the missing subsets: the small ones that pairs are made of, and all."""
    count = sum(len(set(seeds) - set(known.get(names, {}))) for names in missing)
    folders = f" --leaderboard {shlex.quote(str(board))} --runs {shlex.quote(str(runs))}"
    small = [file for file in files if file.name[0] in "12"]
    return {
        "runs": count,
        "transfer": _command(small, "[12]-*.yaml", folders),
        "all": _command(files, "*.yaml", folders),
    }


def _command(files: Sequence[Path], pattern: str, folders: str) -> str | None:
    if not files:
        return None
    return f"harness submit {shlex.quote(str(files[0].parent))}/{pattern}{folders}"
