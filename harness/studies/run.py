"""Running a study: what is missing is trained, what is there is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from harness import api, single_task
from harness.atomic import write_text
from harness.board.entries import by_preference, entries_of
from harness.board.interaction import by_fingerprint
from harness.board.records import read_records
from harness.progress import Reporter
from harness.studies.spec import Arm


def submissions(arms: Mapping[str, Arm], folder: Path, single_tasks: bool, board: Path) -> list[Path]:
    """Write the submissions of a study as files, those of single tasks once each.

    The same submission may stand on the board under another name, or be an arm and a single-task baseline at once. It
    goes by one name then, its own if that is there, so that no seed is trained twice and all its seeds are one entry.

    Args:
        arms: By name.
        folder: Where to.
        single_tasks: Whether these are wanted.
        board: The leaderboard's folder.
    """
    stored = by_fingerprint(entries_of(read_records(board)))
    called = {fingerprint: by_preference(same)[0].records[0].name for fingerprint, same in stored.items()}
    files = []
    for name, arm in arms.items():
        file = folder / f"{name}.yaml"
        fingerprint, own = arm.submission.fingerprint(), arm.submission.name
        if fingerprint not in called or own in {entry.records[0].name for entry in stored[fingerprint]}:
            called[fingerprint] = own
        content = arm.submission.resolved() | {"name": called[fingerprint]}
        write_text(file, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
        files.append(file)
    if single_tasks:
        for arm in sorted(arms.values(), key=lambda arm: len(arm.submission.seeds)):  # most seeds last: they stay
            files += single_task.write(arm.submission, folder, called)
    return list(dict.fromkeys(files))


def forecast(files: Sequence[Path], board: Path) -> dict[str, Any]:
    """What running them costs, as far as records tell.

    Returns:
        ``runs``, ``done``, ``missing``, and ``seconds``: training and evaluation of the missing runs, taken from other
        seeds of the same submission, else as the mean per step of all records of the study; None where there is none.
    """
    loaded = [api.load(file) for file in files]
    keys = {one.fingerprint(): one for one in loaded}
    records = [record for record in read_records(board) if record.fingerprint in keys]
    spent: dict[str, list[float]] = {}
    per_step = []
    for record in records:
        passed = (record.cost.train_seconds or 0.0) + (record.cost.evaluation_seconds or 0.0)
        spent.setdefault(record.fingerprint, []).append(passed)
        per_step.append(passed / keys[record.fingerprint].training.steps)
    done = {(record.fingerprint, record.seed) for record in records}
    missing = [(key, one) for key, one in keys.items() for seed in one.seeds if (key, seed) not in done]
    seconds = (
        sum(fmean(spent[key]) if key in spent else fmean(per_step) * one.training.steps for key, one in missing)
        if per_step
        else None
    )
    runs = sum(len(one.seeds) for one in keys.values())
    return {"runs": runs, "done": runs - len(missing), "missing": len(missing), "seconds": seconds}


@dataclass(frozen=True)
class Runner:
    """How and where the runs of a study are made.

    Attributes:
        launcher: ``local``, ``slurm`` or ``ray``; None runs one after another in this process.
        jobs: As the launchers take it.
        options: As the launchers take them.
        board: The leaderboard's folder.
        runs: Folder of run folders.
        reporter: Shows progress.
    """

    launcher: str | None
    jobs: int | None
    options: Sequence[str]
    board: Path
    runs: Path
    reporter: Reporter

    def train(self, files: Sequence[Path]) -> list[str]:
        """Train what is missing.

        Args:
            files: From `submissions`.

        Returns:
            A sentence about each run that failed.

        Raises:
            HarnessError: A submission is not valid, or without a launcher a run failed.
        """
        where: dict[str, Any] = {"board": self.board, "runs": self.runs, "reporter": self.reporter}
        if self.launcher is None:
            for file in files:
                api.submit(file, **where)
            return []
        from harness.launching.launch import launch

        launched = launch(self.launcher, files, at_once=self.jobs, options=self.options, **where)
        return [f"{job.id}: {job.last_words()} (log: {job.log})" for job in launched.failed]
