"""The command line. Thin: each verb parses its arguments, calls one function and prints what it returns."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from harness.commands import leaderboard as board_verbs
from harness.commands.shared import BoardOption, JsonOption, QuietOption, RunsOption, print_board, print_json
from harness.errors import HarnessError
from harness.progress import Reporter
from harness.training.devices import INTERRUPTED, LAUNCHED, deserted, first_to_fail, is_main, world

if TYPE_CHECKING:
    from harness.board.records import Record
    from harness.launching.jobs import Job

app = typer.Typer(
    name="harness",
    help="Train a model on several vision tasks at once, score it, and tell whether it beats a baseline.\n\n"
    "Start with [bold]harness demo[/bold]; then copy a file from baselines/ and [bold]harness submit[/bold] it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Make and inspect data sets.", no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(data_app, name="data")
app.add_typer(board_verbs.app, name="leaderboard")
app.command(epilog="Example: harness rerun my-model")(board_verbs.rerun)

_LISTINGS = "datasets, adapters, backbones, sharing, balancing, regimes, heads, placeholders or controls"
FilesArgument = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Submissions (YAML).")]
LauncherOption = Annotated[
    str | None, typer.Option("--launcher", help="Run every seed as a job of its own: local, slurm or ray.")
]
JobsOption = Annotated[
    int | None,
    typer.Option("--jobs", min=1, help="Jobs at a time.  [default: local: one per GPU, or one; others: no limit]"),
]
OptionsOption = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="For the launcher, e.g. slurm_partition=gpu."),
]
Wanted = tuple[Path, list[str], int | None]  # a submission, what replaces its values, and the limit of a smoke run
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a value, e.g. training.steps=100.")
]


@app.command(epilog="Example: harness demo --quick")
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="Half the training steps.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of resuming.")] = False,
    directory: Annotated[Path, typer.Option("--dir", help="Where runs and board go.")] = Path("demo"),
    quiet: QuietOption = False,
) -> None:
    """Train a placeholder model and its control on four small tasks, and compare them. Minutes on a laptop."""
    from harness.demo import run_demo

    run_demo(directory, quick, fresh, Reporter(quiet=quiet), Console())


@app.command(epilog="Example: harness submit baselines/shapes-placeholder.yaml --seeds 0,1,2 --set training.steps=500")
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
    from harness.training import devices as processes

    if launcher is None and (jobs is not None or options):
        raise HarnessError(
            f"{'--jobs' if jobs is not None else '--option'}: needs --launcher local, slurm or ray; without a launcher "
            "runs follow each other in this process"
        )
    numbers = _seeds(seeds)
    for file in files:  # every file is checked before the first one trains
        submission = api.load(file, numbers, overrides or [], limit)
        processes.check_batches(submission, devices or processes.world())
    wanted: list[Wanted] = [(file, overrides or [], limit) for file in files]
    if with_baselines:
        wanted += _single_tasks(wanted, numbers, runs / "single-task")
    reporter = Reporter(quiet=quiet)
    records: list[Record] = []
    failed: list[Job] = []
    if launcher is not None:
        if world() > 1:
            raise HarnessError(f"--launcher {launcher}: {world()} processes were started already; leave it out")
        from harness.launching.launch import launch

        for group in (wanted[: len(files)], wanted[len(files) :]):
            for _, changes, most in group[:1]:
                recipe = (numbers, changes, most, fresh, devices or 1)
                names = [file for file, _, _ in group]
                launched = launch(launcher, names, *recipe, jobs, options or [], leaderboard, runs, reporter)
                records, failed = records + launched.records, failed + launched.failed
    else:
        if devices is not None and devices > 1 and world() == 1:
            raise typer.Exit(processes.launch(devices, sys.argv[1:]))
        if devices not in (None, world()):
            raise HarnessError(f"--devices {devices}: {world()} processes were started already; leave --devices out")
        for file, changes, most in wanted:
            records += api.submit(file, numbers, changes, most, fresh, leaderboard, runs, reporter)
    if world() > 1:
        from harness.training.engine import leave

        leave()
    if not is_main():
        return
    if bundle is not None and records:
        from harness.board.bundle import write_bundle

        whole = all((runs / f"{record.fingerprint}-seed{record.seed}").is_dir() for record in records)
        write_bundle(bundle, leaderboard, records, [runs] if whole else [])
        reporter.say(f"{bundle}: {len(records)} records" + ("" if whole else ", no predictions, for the runs are gone"))
    if as_json:
        print_json([record.model_dump(mode="json", exclude={"submission", "curves"}) for record in records])
    elif records:
        from harness.board.robustness import sentences

        print_board(leaderboard, {record.name for record in records})
        for record in records:
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
        for text in api.missing_baselines(leaderboard, records):
            reporter.say(text)
    for job in failed:
        print(f"failed: {job.id}: {job.last_words()} (log: {job.log})", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


@app.command(epilog="Example: harness validate baselines/*.yaml")
def validate(
    files: Annotated[list[Path] | None, typer.Argument(metavar="FILE...", help="Submissions (YAML).")] = None,
    overrides: SetOption = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of submissions.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check submissions as submit would before training: schema, data, network, one sample per task."""
    from harness.submission import json_schema, load_submission

    if schema:
        print_json(json_schema())
        return
    if not files:
        raise HarnessError("validate: name at least one submission, e.g. harness validate baselines/shapes-plain.yaml")
    for file in files:  # what the schema can tell is told before the libraries of deep learning load
        load_submission(file, overrides or [])
    from harness.validation import check

    reports = [check(file, overrides or []) for file in files]
    if as_json:
        print_json(reports)
        return
    from harness.terminal import print_validation

    for report in reports:
        print_validation(report, Console())


@app.command(epilog="Example: harness score shapes-detection results.json --name my-detector")
def score(
    card: Annotated[str, typer.Argument(help="Dataset card.")],
    predictions: Annotated[Path, typer.Argument(help="Predictions in the task's official format.")],
    name: Annotated[str, typer.Option("--name", help="The entry's name on the board.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="Training seed that the predictions come from.")] = 0,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many images.")] = None,
    leaderboard: BoardOption = Path("leaderboard"),
    as_json: JsonOption = False,
) -> None:
    """Score a file of predictions and put it on the board."""
    from harness import api

    record = api.score(card, predictions, name, seed, leaderboard, limit)
    if as_json:
        print_json(record.model_dump(mode="json"))
        return
    table = Table(title=record.id)
    table.add_column("metric")
    table.add_column("value", justify="right")
    for task in record.tasks.values():
        for key, value in task.metrics.items():
            shown = "undefined" if value is None else f"{100 * value:.2f}"
            table.add_row(key, shown, style="bold" if key == task.main else "")
    Console().print(table)


@app.command(epilog="Example: harness compare shapes-placeholder shapes-plain")
def compare(
    entry: Annotated[str, typer.Argument(metavar="A", help="Entry: name or name@fingerprint.")],
    baseline: Annotated[str, typer.Argument(metavar="B", help="The baseline it is compared with.")],
    by: Annotated[
        list[str] | None,
        typer.Option("--by", help="Also by class, size, category, answer-type or question-type; may be repeated."),
    ] = None,
    leaderboard: BoardOption = Path("leaderboard"),
    as_json: JsonOption = False,
) -> None:
    """Tell, with confidence intervals, whether A beats B."""
    from harness import api

    comparison = api.compare(entry, baseline, leaderboard, by or [])
    if as_json:
        print_json(comparison.to_json())
    else:
        from harness.terminal import print_comparison

        print_comparison(comparison, Console())


@app.command(epilog="Example: harness study baselines/studies/pe-shapes.yaml --launcher local --jobs 2")
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
    prepared = studies.prepare(file, _seeds(seeds), overrides or [], runs)
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
        failed = studies.execute(prepared, launcher, jobs, options or [], leaderboard, runs, reporter)
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


@app.command(epilog="Example: harness analyze shapes-placeholder --seed 0")
def analyze(
    entry: Annotated[str, typer.Argument(metavar="ENTRY", help="Entry: name or name@fingerprint.")],
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Which run of the entry.  [default: its first]")
    ] = None,
    images: Annotated[
        int, typer.Option("--images", min=1, max=100_000, help="Evaluation images of each task to look at.")
    ] = 128,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder to write to.  [default: analysis in the run's folder]")
    ] = None,
    leaderboard: BoardOption = Path("leaderboard"),
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Report what a trained network does with its tokens, and how its tasks get along."""
    from harness import api

    document, written = api.analyze(entry, seed, images, output, leaderboard, runs, Reporter(quiet=quiet))
    if as_json:
        print_json(document)
    Console(stderr=True).print(f"wrote {', '.join(map(str, written))}", highlight=False, markup=False)


@app.command(name="ls", epilog="Example: harness ls backbones --filter convnext")
def list_names(
    kind: Annotated[str, typer.Argument(help=_LISTINGS)],
    name_filter: Annotated[str, typer.Option("--filter", help="Only names that contain this text.")] = "",
    library: Annotated[
        str | None, typer.Option("--library", help="backbones: timm, torchvision or open_clip only.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="backbones: try every model out (minutes, once).")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List what can be named in a submission."""
    from harness.listing import list_rows

    rows = list_rows(kind, name_filter, library, check, Reporter(quiet=quiet))
    if as_json:
        print_json(rows)
        return
    table = Table()
    for column in rows[0] if rows else ["name"]:
        table.add_column(column, overflow="fold", no_wrap=column == "name")  # names are there to be copied
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)


@data_app.command(epilog="Example: harness data make shapes")
def make(
    name: Annotated[str, typer.Argument(help="The embedded suite: shapes")],
    quiet: QuietOption = False,
) -> None:
    """Write the embedded suite into the cache folder ($HARNESS_CACHE)."""
    if name != "shapes":
        raise HarnessError(f"data make: {name!r} is not an embedded suite; write: harness data make shapes")
    from harness.demo import ensure_shapes

    print(ensure_shapes(Reporter(quiet=quiet)))


@data_app.command(epilog="Example: harness data check coco2017 vqa2")
def check(
    names: Annotated[list[str], typer.Argument(metavar="CARD...", help="Dataset cards: names or YAML files.")],
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Processes that decode; 0 for none.  [default: one per CPU]")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Read every file again, changed or not.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Print every finding.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Verify data sets on disk; several are also compared with each other. Exit 1 on errors and warnings."""
    from harness.cards import load_card
    from harness.data import checking

    cards = [load_card(name) for name in names]
    report = checking.check(cards, workers, Reporter(quiet=quiet), fresh)
    if as_json:
        print_json(report.to_json())
    else:
        from harness.data.checking.printing import print_report

        print_report(report, Console(), everything)
    if not report.clean:
        raise typer.Exit(1)


@data_app.command(name="ls", epilog="Example: harness data ls --filter coco")
def list_data(
    name_filter: Annotated[str, typer.Option("--filter", help="Only names that contain this text.")] = "",
    as_json: JsonOption = False,
) -> None:
    """List the data sets that can be named, and what of them is on this machine."""
    from harness.data.checking.presence import data_sets

    rows = data_sets(name_filter)
    if as_json:
        print_json(rows)
    else:
        from harness.data.checking.printing import print_data_sets

        print_data_sets(rows, Console())


@data_app.command(epilog="Example: harness data shard coco2017 train --to shards --images 1000")
def shard(
    name: Annotated[str, typer.Argument(metavar="CARD", help="Dataset card.")],
    split: Annotated[str, typer.Argument(help="train, val or test")],
    folder: Annotated[Path, typer.Option("--to", help="Folder for the tar files.")],
    images: Annotated[int, typer.Option("--images", min=1, help="Images per tar file.")] = 1000,
    quiet: QuietOption = False,
) -> None:
    """Pack a split's images into tar shards (WebDataset), for network and object storage."""
    from harness.cards import load_card
    from harness.data.shards import write_shards

    pattern = write_shards(load_card(name), split, folder, images, Reporter(quiet=quiet))
    print(f"in a card whose root is {folder}:\nsplits: {{{split}: {{images: '{pattern}', ...}}}}")


def _single_tasks(wanted: list[Wanted], seeds: list[int] | None, folder: Path) -> list[Wanted]:
    """The single-task baselines of submissions, each once; what was changed in these is in their files already."""
    from harness import api
    from harness.single_task import write

    loaded = [api.load(file, seeds, overrides, limit) for file, overrides, limit in wanted]
    return [(file, [], None) for file in dict.fromkeys(made for one in loaded for made in write(one, folder))]


def _seeds(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise HarnessError(f"--seeds {text!r}: write whole numbers with commas, e.g. --seeds 0,1,2") from None


def main() -> None:
    """Entry point: errors as one sentence with exit code 2, Ctrl-C as 130."""
    # Libraries' warnings are for developers; ours are shown as one line.
    warnings.filterwarnings("ignore")
    warnings.filterwarnings("default", module=r"harness\.")
    if world() > 1:  # torch, not loaded yet, would say of several processes what is of no use to their user
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr) if is_main() else None
    try:
        app()
    except HarnessError as error:
        from harness.terminal import safe_terminal

        if first_to_fail():
            print(f"error: {safe_terminal(str(error))}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as stop:
        # Typer turns Ctrl-C into this, without a word; of several processes the one that started them says it.
        if stop.code == INTERRUPTED and world() == 1:
            print("interrupted; the work so far is kept, the same command goes on with it", file=sys.stderr)
        raise
    except BrokenPipeError:  # the reader of a pipe, e.g. head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if deserted(error):
            if LAUNCHED not in os.environ and first_to_fail():
                print(f"error: another process of this run is gone ({error})", file=sys.stderr)
            sys.exit(1)
        if not first_to_fail():
            sys.exit(1)
        raise
