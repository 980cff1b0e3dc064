"""The verbs of data sets: make the embedded suite, verify and list data sets, pack one into shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from harness.commands.shared import JsonOption, QuietOption, print_json
from harness.errors import HarnessError
from harness.progress import Reporter

app = typer.Typer(help="Make and inspect data sets.", no_args_is_help=True, rich_markup_mode="rich")


@app.command(epilog="Example: harness data make shapes")
def make(
    name: Annotated[str, typer.Argument(help="The embedded suite: shapes")],
    quiet: QuietOption = False,
) -> None:
    """Write the embedded suite into the cache folder ($HARNESS_CACHE)."""
    if name != "shapes":
        raise HarnessError(f"data make: {name!r} is not an embedded suite; write: harness data make shapes")
    from harness.demo import ensure_shapes

    print(ensure_shapes(Reporter(quiet=quiet)))


@app.command(epilog="Example: harness data check coco2017 vqa2")
def check(
    names: Annotated[list[str], typer.Argument(metavar="CARD...", help="Dataset cards: names or YAML files.")],
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=0, help="Processes that decode; 0 for none.  \\[default: one per CPU]"),
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


@app.command(name="ls", epilog="Example: harness data ls --filter coco")
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


@app.command(epilog="Example: harness data shard coco2017 train --to shards --images 1000")
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
