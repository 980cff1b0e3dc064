"""Submissions and seeds to jobs, jobs to a launcher, and their records back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import api
from harness.atomic import make_folder
from harness.board.records import Record, read_records
from harness.launching import LAUNCHERS
from harness.launching.fan_out import fan_out
from harness.launching.jobs import LAUNCHED, Job, read_options
from harness.progress import Reporter
from harness.registry import look_up


@dataclass(frozen=True)
class Launched:
    """What became of the jobs.

    Attributes:
        records: One per job that is done, in the jobs' order.
        failed: The jobs that are not.
    """

    records: list[Record]
    failed: list[Job]


def launch(
    launcher: str,
    files: Sequence[Path],
    seeds: Sequence[int] | None = None,
    overrides: Sequence[str] = (),
    limit: int | None = None,
    fresh: bool = False,
    devices: int = 1,
    at_once: int | None = None,
    options: Sequence[str] = (),
    board: Path = api.BOARD,
    runs: Path = api.RUNS,
    reporter: Reporter | None = None,
) -> Launched:
    """Run every seed of every submission as a job of its own, and regenerate the board.

    Args:
        launcher: ``local``, ``slurm`` or ``ray``.
        files: The submissions' YAML files.
        seeds: Seeds instead of the files'.
        overrides: ``a.b=value`` texts that replace values of the files.
        limit: Use at most so many images of each split and so many steps; the records are not ranked.
        fresh: Start over instead of resuming.
        devices: Processes that share each run.
        at_once: Jobs under way at a time; None leaves it to the launcher.
        options: ``key=value`` texts for the launcher.
        board: The leaderboard's folder.
        runs: Folder of run folders; logs go to ``launched/`` in it.
        reporter: Shows progress; quiet by default.

    Returns:
        Records, and the jobs that failed.

    Raises:
        HarnessError: A submission, the launcher or an option is not valid; nothing has been started then.
        KeyboardInterrupt: Ctrl-C came; running jobs have kept their work.
    """
    build, values = look_up(LAUNCHERS, launcher, "launcher"), read_options(options)
    words = ("--devices", str(devices)) if devices > 1 else ()
    jobs: dict[str, Job] = {}  # the same submission twice is one job
    for file in files:
        submission = api.load(file, seeds, overrides, limit)
        fingerprint = submission.fingerprint()
        for seed in submission.seeds:
            job = Job(submission, fingerprint, seed, board, runs, fresh, words)
            jobs.setdefault(job.id, job)
    missing = [job for job in jobs.values() if fresh or not job.recorded()]
    done = set(jobs)
    if missing:
        folder = runs / LAUNCHED
        make_folder(folder)
        place = build(folder / launcher, at_once, devices, **values)
        statuses = fan_out(list(jobs.values()), place, reporter or Reporter(quiet=True))
        done = {status.job.id for status in statuses if status.state == "done"}
    if done:
        api.leaderboard(board)
    records = {record.id: record for record in (read_records(board) if done else ())}
    return Launched([records[id] for id in jobs if id in done], [job for id, job in jobs.items() if id not in done])
