"""The verbs of whoever writes a submission: check it, and list what it can name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from harness.commands.shared import JsonOption, QuietOption, SetOption, print_json
from harness.errors import HarnessError
from harness.progress import Reporter

_LISTINGS = "datasets, adapters, backbones, sharing, balancing, regimes, heads, placeholders or controls"


def validate(
    files: Annotated[list[Path] | None, typer.Argument(metavar="FILE...", help="Submissions (YAML).")] = None,
    overrides: SetOption = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of submissions.")] = False,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print the whole submissions with every default, as YAML.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check submissions as submit would before training: schema, data, network, one sample per task.

    All files are checked; those that are refused are told at the end.
    """
    from harness.submission import json_schema, load_submission

    if schema:
        if files or overrides or resolved:
            given = str(files[0]) if files else "--set" if overrides else "--resolved"
            raise HarnessError(f"--schema: is the same for all submissions; leave out {given}, or --schema")
        print_json(json_schema())
        return
    if not files:
        raise HarnessError("validate: name at least one submission, e.g. harness validate baselines/shapes-plain.yaml")
    # What the schema can tell is told before the libraries of deep learning load.
    _, refused = _each(files, lambda file: load_submission(file, overrides or []))
    good = [file for file in files if file not in refused]
    reports: list[dict[str, Any]] = []
    if good:
        from harness.validation import check

        reports, unfit = _each(good, lambda file: check(file, overrides or []))
        refused |= unfit
        if not as_json:
            _print(reports, resolved)
    if as_json and reports:
        print_json(reports)
    if refused:
        from harness.terminal import safe_terminal

        *others, last = refused.values()
        for error in others:
            typer.echo(f"error: {safe_terminal(str(error))}", err=True)
        raise last


def _print(reports: list[dict[str, Any]], resolved: bool) -> None:
    """What was found out about the submissions, or these themselves: files that can be submitted."""
    if not resolved:
        from harness.terminal import print_validation

        for report in reports:
            print_validation(report, Console())
        return
    import yaml

    shown = [yaml.safe_dump(report["submission"], sort_keys=False, allow_unicode=True) for report in reports]
    print("---\n".join(shown), end="")


def _each(files: list[Path], look: Callable[[Path], Any]) -> tuple[list[Any], dict[Path, HarnessError]]:
    """What `look` finds in each file, and what is wrong with the others."""
    found, refused = [], {}
    for file in files:
        try:
            found.append(look(file))
        except HarnessError as error:
            named = str(error).startswith(f"{file}:")
            refused[file] = error if named else HarnessError(f"{file}: {error}")
    return found, refused


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
