"""Options and output that verbs share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from harness.errors import HarnessError

FilesArgument = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Submissions (YAML).")]
BoardOption = Annotated[Path, typer.Option("--leaderboard", help="Folder of records and the board made from them.")]
RunsOption = Annotated[Path, typer.Option("--runs", help="Folder of checkpoints, logs and predictions.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a value, e.g. training.steps=100.")
]
LauncherOption = Annotated[
    str | None, typer.Option("--launcher", help="Run every seed as a job of its own: local, slurm or ray.")
]
JobsOption = Annotated[
    int | None,
    typer.Option("--jobs", min=1, help="Jobs at a time.  \\[default: local: one per GPU, or one; others: no limit]"),
]
OptionsOption = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="For the launcher, e.g. slurm_partition=gpu."),
]


def print_json(value: Any) -> None:
    """A document on standard output."""
    from harness.atomic import json_bytes

    sys.stdout.buffer.write(json_bytes(value))


def print_board(board: Path, names: set[str] | None = None) -> None:
    """The board's tables, or only the rows of some names."""
    from harness.terminal import print_board as show

    show(board, Console(), names)


def read_seeds(text: str | None) -> list[int] | None:
    """The seeds that ``--seeds`` names.

    Raises:
        HarnessError: They are not whole numbers with commas.
    """
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise HarnessError(f"--seeds {text!r}: write whole numbers with commas, e.g. --seeds 0,1,2") from None
