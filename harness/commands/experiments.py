"""The verbs that run whole experiments: the demo, and studies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from harness.commands.shared import (
    BoardOption,
    JobsOption,
    JsonOption,
    LauncherOption,
    OptionsOption,
    QuietOption,
    RunsOption,
    SetOption,
    print_json,
    read_seeds,
)
from harness.progress import Reporter


def demo(
    quick: Annotated[bool, typer.Option("--quick", help="Half the training steps.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of resuming.")] = False,
    directory: Annotated[Path, typer.Option("--dir", help="Where runs and board go.")] = Path("demo"),
    quiet: QuietOption = False,
) -> None:
    """Train a placeholder model and its control on four small tasks, and compare them. Minutes on a laptop."""
    from harness.demo import run_demo

    run_demo(directory, quick, fresh, Reporter(quiet=quiet), Console())


def study(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The study (YAML).")],
    seeds: Annotated[str | None, typer.Option("--seeds", help="Seeds instead of the file's, e.g. 0,1,2.")] = None,
    overrides: SetOption = None,
    forecast: Annotated[bool, typer.Option("--forecast", help="Only tell what is missing and what it costs.")] = False,
    only_report: Annotated[bool, typer.Option("--report", help="Only report what the records say so far.")] = False,
    launcher: LauncherOption = None,
    jobs: JobsOption = None,
    options: OptionsOption = None,
    leaderboard: BoardOption = Path("leaderboard"),
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run what is missing of a study, and report what it shows. Exit 1 if a run failed."""
    from harness.studies import run as running
    from harness.studies import study as studies

    reporter = Reporter(quiet=quiet)
    prepared = studies.prepare(file, read_seeds(seeds), overrides or [], leaderboard, runs)
    expected = running.forecast(prepared.files, leaderboard)
    if forecast and as_json:
        print_json(expected)
        return
    for sentence in (studies.sentence(prepared, expected), *studies.seeds_to_see(prepared)):
        reporter.say(sentence)
    if forecast:
        return
    failed = []
    if not only_report:
        runner = running.Runner(launcher, jobs, options or [], leaderboard, runs, reporter)
        failed = studies.execute(prepared, runner)
    report, written = studies.conclude(prepared, leaderboard)
    if as_json:
        print_json(report)
    else:
        for sentence in [*(claim["sentence"] for claim in report["claims"]), *report["verdicts"]]:
            print(sentence)
        Console(stderr=True).print(f"wrote {', '.join(map(str, written))}", highlight=False, markup=False)
    for sentence in failed:
        print(f"failed: {sentence}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)
