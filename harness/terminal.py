"""Boards and comparisons on a terminal."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.board.breakdown import Part
from harness.board.compare import Comparison
from harness.board.tables import rows
from harness.board.text import safe_terminal as safe_terminal

WIDE = 140  # columns of a terminal that has room for every column of a board
_DETAILS = ("mean rank", "seeds", "parameters", "training", "trust")


def print_board(board: Path, console: Console, names: set[str] | None = None) -> None:
    """Print the tables of a board that has just been written.

    Args:
        board: The board's folder.
        console: Where to.
        names: Print only tables that hold one of these entries.
    """
    document = orjson.loads((board / "board.json").read_bytes())
    for title, header, body in rows(document):
        if names is not None and not any(cell.split("@")[0] in names for row in body for cell in row):
            continue
        shown = [i for i, column in enumerate(header) if console.width >= WIDE or column not in _DETAILS]
        table = Table(title=Text(title), title_justify="left", padding=(0, 0 if console.width < WIDE else 1))
        for index in shown:
            left = index < 2 or len(header) == 2
            # Names of cards may break at their hyphens. What has no room goes on in the next line: nothing is cut off.
            heading = Text(header[index].replace("-", "-\n"))
            table.add_column(heading, justify="left" if left else "right", overflow="fold")
        for row in body:
            table.add_row(*(Text(_two_lines(row[index])) for index in shown))
        console.print(table)


def _two_lines(cell: str) -> str:
    """``97.40 [95.91, 98.51] #1`` as ``97.40 #1`` above ``[95.9, 98.5]``; other cells as they are."""
    match = re.fullmatch(r"(\S+) \[([-+\d.]+), ([-+\d.]+)\](.*)", cell)
    if match is None:
        return cell
    value, low, high, place = match.groups()
    return f"{value}{place}\n[{float(low):.1f}, {float(high):.1f}]"


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print both values, the paired difference and a verdict for every task."""
    table = Table(
        title=Text(f"{safe_terminal(comparison.a)} against {safe_terminal(comparison.b)}"), title_justify="left"
    )
    for index, column in enumerate(("task", "A", "B", "A - B", "95% interval", "p (Holm)")):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for task in comparison.tasks:
        paired = task.paired
        style = "" if task.p_holm >= 0.05 else "green" if paired.difference > 0 else "red"
        table.add_row(
            Text(f"{safe_terminal(task.card)} ({safe_terminal(task.main)})"),
            f"{100 * task.a.value:.2f}",
            f"{100 * task.b.value:.2f}",
            Text(f"{100 * paired.difference:+.2f}", style=style),
            Text(f"[{100 * paired.low:+.2f}, {100 * paired.high:+.2f}]"),
            f"{task.p_holm:.3f}",
        )
    console.print(table)
    for task in comparison.tasks:
        for kind, parts in task.by.items():
            _print_parts(f"{task.card} by {kind}", parts, console)
    _print_drops(comparison, console)
    known = [k for k in comparison.cost_a if comparison.cost_a[k] is not None or comparison.cost_b.get(k) is not None]
    if known:
        table = Table()
        for index, column in enumerate(("cost", "A", "B", "A / B")):
            table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
        for key in known:
            ours, base = comparison.cost_a[key], comparison.cost_b[key]
            cells = ["unknown" if cost is None else f"{cost:,.0f}" for cost in (ours, base)]
            table.add_row(key.replace("_", " "), *cells, f"{ours / base:.2f}" if ours is not None and base else "")
        console.print(table)
    if comparison.delta_m is not None:
        delta = comparison.delta_m
        console.print(f"delta m: {delta.value:+.2f}% [{delta.low:+.2f}, {delta.high:+.2f}]", markup=False)
    if comparison.per_parameter is not None:
        delta = comparison.per_parameter
        console.print(
            f"delta m per percent of added parameters: {delta.value:+.3f}% [{delta.low:+.3f}, {delta.high:+.3f}]",
            markup=False,
        )
    for sentence in comparison.verdict:
        console.print(safe_terminal(sentence), markup=False, highlight=False)


def _print_drops(comparison: Comparison, console: Console) -> None:
    if not comparison.drops:
        return
    table = Table(title=Text("drop on corrupted images"), title_justify="left")
    for index, column in enumerate(("task", "A", "B", "A - B", "95% interval", "p (Holm)")):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for drop in comparison.drops:
        style = "" if drop.p_holm >= 0.05 else "green" if drop.difference < 0 else "red"
        table.add_row(
            Text(f"{safe_terminal(drop.card)} ({safe_terminal(drop.main)})"),
            f"{100 * drop.a:.2f}",
            f"{100 * drop.b:.2f}",
            Text(f"{100 * drop.difference:+.2f}", style=style),
            Text(f"[{100 * drop.low:+.2f}, {100 * drop.high:+.2f}]"),
            f"{drop.p_holm:.3f}",
        )
    console.print(table)


def _print_parts(title: str, parts: list[Part], console: Console) -> None:
    table = Table(title=Text(safe_terminal(title)), title_justify="left")
    for index, column in enumerate(("part", "A", "B", "A - B", "95% interval", "p (Holm)")):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for part in parts:
        style = "" if not part.told_apart else "green" if part.difference > 0 else "red"
        table.add_row(
            Text(safe_terminal(part.name)),
            f"{100 * part.a:.2f}",
            f"{100 * part.b:.2f}",
            Text(f"{100 * part.difference:+.2f}", style=style),
            Text(f"[{100 * part.low:+.2f}, {100 * part.high:+.2f}]"),
            f"{part.p_holm:.3f}",
        )
    console.print(table)


def print_validation(report: dict[str, Any], console: Console) -> None:
    """Print what `harness validate` found out about a submission."""
    table = Table(title=f"{report['name']}  {report['fingerprint']}", title_justify="left")
    table.add_column("part", overflow="fold")
    for heading in ("parameters", "trainable", "frozen"):
        table.add_column(heading, justify="right")
    sums = (sum(report["parameters"].values()), sum(report["trainable"].values()))
    for part, count in report["parameters"].items():
        trainable = report["trainable"][part]
        table.add_row(part, f"{count:,}", f"{trainable:,}", f"{count - trainable:,}")
    table.add_row("all", f"{sums[0]:,}", f"{sums[1]:,}", f"{sums[0] - sums[1]:,}", style="bold")
    console.print(table)
    stages = ", ".join(f"{one['module']} /{one['stride']} x{one['channels']}" for one in report["stages"]) or "none"
    strides = ", ".join(map(str, report["strides"]))
    text = f"backbone stages (module /stride xchannels): {stages}\npyramid strides: {strides}"
    console.print(text, markup=False, highlight=False)
    table = Table(padding=0)
    for heading in ("dataset", "task", "train", "evaluation", "classes", "image size", "MACs/image"):
        table.add_column(heading, justify="left" if heading in ("dataset", "task") else "right", overflow="fold")
    for row in report["tasks"]:
        cells = {**row, "macs": f"{row['macs'] / 1e6:,.1f} M"}
        table.add_row(*(f"{v:,}" if isinstance(v, int) else str(v) for v in cells.values()))
    console.print(table)
    if report["control"] is not None:
        _print_match(report["control"], console)
    if not report["attachments"]:
        console.print("placeholder sites: none\n")
        return
    table = Table()
    for heading in ("placeholder site", "what", "stride", "parameters"):
        table.add_column(
            heading, justify="left" if heading in ("placeholder site", "what") else "right", overflow="fold"
        )
    for row in report["attachments"]:
        table.add_row(row["site"], row["what"], str(row["stride"]), f"{row['parameters']:,}")
    console.print(table)
    console.print()


def _print_match(sides: dict[str, Any], console: Console) -> None:
    """A control beside what it is a control of."""
    table = Table(title="match of the control", title_justify="left")
    table.add_column("")
    for heading in ("parameters", "trainable", "MACs of all steps (forward)"):
        table.add_column(heading, justify="right")
    for side in sides.values():
        table.add_row(side["name"], *(f"{side[key]:,}" for key in ("parameters", "trainable", "macs")))
    base, control = sides["submission"], sides["control"]
    table.add_row(
        "difference", *(f"{100 * (control[key] / base[key] - 1):+.2f}%" for key in ("parameters", "trainable", "macs"))
    )
    console.print(table)
