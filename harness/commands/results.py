"""The verbs of results: score predictions, compare two entries, and look into a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from harness.commands.shared import BoardOption, JsonOption, QuietOption, RunsOption, print_json
from harness.progress import Reporter


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


def analyze(
    entry: Annotated[str, typer.Argument(metavar="ENTRY", help="Entry: name or name@fingerprint.")],
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Which run of the entry.  \\[default: its first]")
    ] = None,
    images: Annotated[
        int, typer.Option("--images", min=1, max=100_000, help="Evaluation images of each task to look at.")
    ] = 128,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder to write to.  \\[default: analysis in the run's folder]"),
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
