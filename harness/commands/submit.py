"""The verb that trains: submissions, and with them their single-task baselines, to records on the board."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.commands.shared import (
    BoardOption,
    FilesArgument,
    JobsOption,
    JsonOption,
    LauncherOption,
    OptionsOption,
    QuietOption,
    RunsOption,
    SetOption,
    print_board,
    print_json,
    read_seeds,
)
from harness.errors import HarnessError
from harness.progress import Reporter
from harness.training import devices as processes

if TYPE_CHECKING:
    from harness.board.records import Record
    from harness.launching.jobs import Job

Wanted = tuple[Path, list[str], int | None]  # a submission, what replaces its values, and the limit of a smoke run


def submit(
    files: FilesArgument,
    seeds: Annotated[str | None, typer.Option("--seeds", metavar="0,1,2", help="Seeds instead of the file's.")] = None,
    overrides: SetOption = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Smoke run: so many images per split and steps; not ranked.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh/--resume", help="Start over instead of resuming.")] = False,
    with_baselines: Annotated[
        bool, typer.Option("--with-baselines", help="Also each task alone, with the same backbone and recipe: for Δm.")
    ] = False,
    devices: Annotated[
        int | None, typer.Option("--devices", min=1, help="Processes that share each run: GPUs, or CPU processes.")
    ] = None,
    launcher: LauncherOption = None,
    jobs: JobsOption = None,
    options: OptionsOption = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="Also pack the records and predictions for somebody else's board.")
    ] = None,
    leaderboard: BoardOption = Path("leaderboard"),
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train and evaluate submissions and put them on the board. With --launcher, exit 1 if a run failed."""
    from harness import api

    if launcher is None and (jobs is not None or options):
        raise HarnessError(
            f"{'--jobs' if jobs is not None else '--option'}: needs --launcher local, slurm or ray; without a launcher "
            "runs follow each other in this process"
        )
    numbers = read_seeds(seeds)
    for file in files:  # every file is checked before the first one trains
        submission = api.load(file, numbers, overrides or [], limit)
        processes.check_batches(submission, devices or processes.world())
    wanted: list[Wanted] = [(file, overrides or [], limit) for file in files]
    baselines = _single_tasks(wanted, numbers, runs / "single-task") if with_baselines else []
    reporter = Reporter(quiet=quiet)
    records: list[Record] = []
    failed: list[Job] = []
    if launcher is not None:
        if processes.world() > 1:
            raise HarnessError(
                f"--launcher {launcher}: {processes.world()} processes were started already; leave it out"
            )
        from harness.launching.launch import launch

        for group in filter(None, (wanted, baselines)):
            _, changes, most = group[0]  # the same for all of a group
            recipe = (numbers, changes, most, fresh, devices or 1)
            names = [file for file, _, _ in group]
            launched = launch(launcher, names, *recipe, jobs, options or [], leaderboard, runs, reporter)
            records, failed = records + launched.records, failed + launched.failed
    else:
        if devices is not None and devices > 1 and processes.world() == 1:
            raise typer.Exit(processes.launch(devices, sys.argv[1:]))
        if devices not in (None, processes.world()):
            raise HarnessError(
                f"--devices {devices}: {processes.world()} processes were started already; leave --devices out"
            )
        for file, changes, most in wanted + baselines:
            records += api.submit(file, numbers, changes, most, fresh, leaderboard, runs, reporter)
    if processes.world() > 1:
        from harness.training.engine import leave

        leave()
    if not processes.is_main():
        return
    if bundle is not None and records:
        _pack(bundle, leaderboard, records, runs, reporter)
    if as_json:
        print_json([record.model_dump(mode="json", exclude={"submission", "curves"}) for record in records])
    elif records:
        print_board(leaderboard, {record.name for record in records})
        for record in records:
            _tell(record, reporter)
        for text in api.missing_baselines(leaderboard, records):
            reporter.say(text)
    for job in failed:
        print(f"failed: {job.id}: {job.last_words()} (log: {job.log})", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def _single_tasks(wanted: list[Wanted], seeds: list[int] | None, folder: Path) -> list[Wanted]:
    """The single-task baselines of submissions, each once; what was changed in these is in their files already."""
    from harness import api
    from harness.single_task import write

    loaded = [api.load(file, seeds, overrides, limit) for file, overrides, limit in wanted]
    return [(file, [], None) for file in dict.fromkeys(made for one in loaded for made in write(one, folder))]


def _pack(bundle: Path, leaderboard: Path, records: Sequence[Record], runs: Path, reporter: Reporter) -> None:
    from harness.board.bundle import write_bundle

    whole = all((runs / f"{record.fingerprint}-seed{record.seed}").is_dir() for record in records)
    write_bundle(bundle, leaderboard, records, [runs] if whole else [])
    reporter.say(f"{bundle}: {len(records)} records" + ("" if whole else ", no predictions, for the runs are gone"))


def _tell(record: Record, reporter: Reporter) -> None:
    """What a record says beside its rows on the board."""
    from harness.board.robustness import sentences

    for text in [*record.unrankable_because, *record.warnings]:
        reporter.say(f"note on {record.id}: {text}")
    related = record.affinity()
    if related:
        shown = ", ".join(f"{pair.replace('|', ' to ')} {value:+.4f}" for pair, value in related.items())
        reporter.say(f"affinities of {record.id}: {shown}")
    forgotten = record.backward_transfer()
    if forgotten:
        shown = ", ".join(f"{card} {100 * change:+.2f}" for card, change in forgotten.items())
        mean = 100 * sum(forgotten.values()) / len(forgotten)
        reporter.say(f"backward transfer of {record.id}: {mean:+.2f} points ({shown})")
    for text in sentences(record):
        reporter.say(f"{record.id}: {text}")
