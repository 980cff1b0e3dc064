"""The verbs of the board: regenerate it, hand an entry to another board, take one in, and train one again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from harness.commands.shared import BoardOption, JsonOption, QuietOption, RunsOption, print_board, print_json
from harness.errors import HarnessError
from harness.progress import Reporter

app = typer.Typer(
    help="Regenerate the board's tables and page from its records; hand entries over, and take them in.",
    invoke_without_command=True,
    rich_markup_mode="rich",
    epilog="Example: harness leaderboard --verify",
)
GroupBoardOption = Annotated[
    Path | None,
    typer.Option("--leaderboard", help="Folder of records and the board made from them.  \\[default: leaderboard]"),
]
PredictionsOption = Annotated[
    list[Path] | None,
    typer.Option("--predictions", help="Also what was scored: a file, a folder, or a folder of runs; may be repeated."),
]


@app.callback()
def regenerate(
    context: typer.Context,
    directory: BoardOption = Path("leaderboard"),
    verify: Annotated[bool, typer.Option("--verify", help="Recompute every number; exit 1 on a mismatch.")] = False,
    as_json: JsonOption = False,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Regenerate the board's tables and page from its records."""
    if context.invoked_subcommand is not None:
        for option, given in (("--verify", verify), ("--json", as_json), ("--open", open_page)):
            if given:
                raise HarnessError(
                    f"{option}: does not go before {context.invoked_subcommand}; leave it out, or write it after"
                )
        return
    from harness.board import page

    if verify:
        problems = page.verify(directory)
        for problem in problems:
            print(_safe(problem), file=sys.stderr if as_json else sys.stdout)
        if problems:
            raise typer.Exit(1)
    if not directory.is_dir():
        raise HarnessError(f"{directory}: there is no such folder; `harness submit` makes a board with its first entry")
    written = page.write_board(directory)
    if as_json:
        print((directory / "board.json").read_text(), end="")
    else:
        print_board(directory)
        Console(stderr=True).print(f"wrote {', '.join(str(path) for path in written)}", highlight=False, markup=False)
    if open_page:
        typer.launch(str((directory / "index.html").resolve()))


@app.command(epilog="Example: harness leaderboard bundle my-model -o my-model.zip --predictions runs")
def bundle(
    context: typer.Context,
    entry: Annotated[str, typer.Argument(help="Entry: name or name@fingerprint.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The zip file to write.")],
    predictions: PredictionsOption = None,
    leaderboard: GroupBoardOption = None,
) -> None:
    """Pack an entry, all its seeds, into a zip file for somebody else's board."""
    from harness import api

    records = api.bundle(entry, output, _board(context, leaderboard), predictions or [])
    print(f"{output}: {', '.join(record.id for record in records)}")


@app.command(epilog="Example: harness leaderboard add my-model.zip --leaderboard public")
def add(
    context: typer.Context,
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE...", help="Zip files that harness bundled.")],
    leaderboard: GroupBoardOption = None,
    more_seeds: Annotated[
        bool, typer.Option("--more-seeds", help="Also add seeds to entries that are on the board.")
    ] = False,
    other_name: Annotated[
        bool, typer.Option("--other-name", help="Also take submissions that are on the board under another name.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check bundles by strangers and put them on the board. Exit 2 if one is refused; the others are stored."""
    from harness import api
    from harness.admission import Admission

    board = _board(context, leaderboard)
    outcomes: dict[str, Admission] = {}
    for path in bundles:
        try:
            outcomes[str(path)] = api.add_bundle(path, board, more_seeds, other_name)
        except HarnessError as error:
            if not path.exists() or len(bundles) == 1:
                raise
            outcomes[str(path)] = Admission(problems=[str(error)])
    if as_json:
        print_json({path: vars(outcome) for path, outcome in outcomes.items()})
    for name, outcome in outcomes.items():
        for note in outcome.notes:
            print(f"note: {_safe(note)}", file=sys.stderr)
        for problem in outcome.problems:
            print(f"error: {_safe(problem)}", file=sys.stderr)
        for word in ("stored", "raised", "unchanged") if not as_json else ():
            for identity in getattr(outcome, word):
                print(f"{_safe(name)}: {word}: {identity}")
    if any(outcome.problems for outcome in outcomes.values()):
        raise typer.Exit(2)


def rerun(
    entry: Annotated[str, typer.Argument(help="Entry: name or name@fingerprint.")],
    weights: Annotated[
        Path | None, typer.Option("--weights", help="The local weights that the submission's backbone starts from.")
    ] = None,
    leaderboard: BoardOption = Path("leaderboard"),
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train an entry again from its record and promote it to rerun if the numbers agree. Exit 1 if they do not."""
    from harness import api

    outcome = api.rerun(entry, leaderboard, runs, weights, Reporter(quiet=quiet))
    if as_json:
        print_json(outcome.model_dump(mode="json"))
    else:
        for sentence in outcome.sentences():
            print(_safe(sentence))
    if not outcome.agrees:
        raise typer.Exit(1)


def _board(context: typer.Context, given: Path | None) -> Path:
    """The folder that was named after the verb, or before it."""
    before: Path = context.parent.params["directory"] if context.parent else Path("leaderboard")
    return given or before


def _safe(text: str) -> str:
    from harness.terminal import safe_terminal

    return safe_terminal(text)
