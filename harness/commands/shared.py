"""Options and output that verbs share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

BoardOption = Annotated[Path, typer.Option("--leaderboard", help="Folder of records and the board made from them.")]
RunsOption = Annotated[Path, typer.Option("--runs", help="Folder of checkpoints, logs and predictions.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")]


def print_json(value: Any) -> None:
    """A document on standard output."""
    from harness.atomic import json_bytes

    sys.stdout.buffer.write(json_bytes(value))


def print_board(board: Path, names: set[str] | None = None) -> None:
    """The board's tables, or only the rows of some names."""
    from harness.terminal import print_board as show

    show(board, Console(), names)
