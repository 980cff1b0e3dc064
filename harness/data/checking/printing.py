"""The report of a check on a terminal."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.board.text import safe_terminal
from harness.data.checking.findings import CODES, Finding, Severity
from harness.data.checking.report import CardReport, Report

STYLES: dict[Severity, str] = {"error": "bold red", "warning": "yellow", "note": "dim"}
EXAMPLES = 3


def print_report(report: Report, console: Console, everything: bool = False) -> None:
    """Print what was verified, what was found, and a line that sums it up.

    Args:
        report: The result of a check.
        console: Where to.
        everything: Print every finding with its sentence, instead of a table with examples.
    """
    for card in report.cards:
        findings = [finding for finding in report.findings if finding.card == card.name]
        _print_card(card, findings, console)
        if everything:
            for finding in findings:
                _print_finding(finding, console)
        elif findings:
            console.print(_table(findings))
        console.print()
    counts = ", ".join(
        _plural(report.count(severity), severity) for severity in STYLES if report.count(severity) or severity != "note"
    )
    if report.clean:
        console.print(Text(f"Clean: {counts} in {_plural(len(report.cards), 'data set')}.", style="green"))
        return
    hint = "" if everything else " --all shows every finding, --json prints them for programs."
    console.print(Text(f"{counts} in {_plural(len(report.cards), 'data set')}.{hint}"), soft_wrap=True)


def print_data_sets(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the rows of `harness.data.checking.presence.data_sets`."""
    styles = {"yes": "green", "partly": "yellow", "no": "dim"}
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        absent = row["present"] == "no"
        line = Text(f"{row['name']:<{width}}  ", style="dim" if absent else "bold")
        line.append(f"{row['present']:<7}", style=f"not bold {styles[row['present']]}")
        splits = ", ".join(f"{split} {_found(row, state)}" for split, state in row["splits"].items())
        line.append(f" {splits}", style="not bold")
        console.print(line, soft_wrap=True)
        kind = f"{row['task']}, {row['adapter']} layout; " if row["task"] else ""
        about = f"{kind}{row['license'] or row['about']}"
        missing = [file for state in row["splits"].values() for file in state["missing"]]
        if row["present"] == "partly" and missing:
            more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
            about += f"\n  missing: {missing[0]}{more}"
        console.print(Text(f"  {safe_terminal(about)}\n  {safe_terminal(row['path'])}", style="dim"), soft_wrap=True)


def _found(row: dict[str, Any], split: dict[str, Any]) -> str:
    images = "in shards" if split["images"] is None else f"{split['images']:,}"
    if split["size"] is None:
        return images
    return f"{images} ({split['size']:,} questions)" if row["task"] == "vqa" else f"{images} / {split['size']:,}"


def _print_card(card: CardReport, findings: list[Finding], console: Console) -> None:
    title = Text(card.name, style="bold")
    title.append(f"  {card.task}, {card.adapter} layout, {safe_terminal(card.root)}", style="not bold dim")
    console.print(title, soft_wrap=True)
    for name, split in card.splits.items():
        counted = ", ".join(f"{count:,} {what}" for what, count in split.counts.items()) or "nothing that can be used"
        files = f"; {split.read:,} files read" if split.read else ""
        if split.reused:
            files += f"; {split.reused:,} files unchanged since they were read"
        bad = [finding for finding in findings if finding.split == name]
        worst = "no findings" if not bad else _plural(len(bad), "finding")
        line = Text(f"  {name:<5} {counted}{files}: ")
        line.append(worst, style=STYLES[bad[0].severity] if bad else "green")
        console.print(line, soft_wrap=True)
    if card.archives:
        wrong = {finding.id for finding in findings if finding.code in ("archive-checksum", "file-unreadable")}
        told = ", ".join(f"{name} ({'differs' if name in wrong else 'as published'})" for name in card.archives)
        console.print(Text(f"  archives: {told}"), soft_wrap=True)


def _table(findings: list[Finding]) -> Table:
    """One row per code and split, with the first findings as examples."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="dim")
    table.add_column("finding", no_wrap=True)
    table.add_column("split", no_wrap=True)
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("what it means, and the first of them", overflow="fold", ratio=1)
    for (code, split), group in groupby(findings, key=lambda finding: (finding.code, finding.split)):
        rows = list(group)
        severity = CODES[code].severity
        text = Text(CODES[code].meaning)
        for row in rows[:EXAMPLES]:
            text.append("\n")
            text.append(_place(row), style="cyan")
            text.append(f"  {safe_terminal(row.message)}", style="dim")
        if len(rows) > EXAMPLES:
            text.append(f"\nand {len(rows) - EXAMPLES:,} more", style="dim")
        name = Text(f"{severity}\n", style=STYLES[severity])
        name.append(code, style="not bold default")
        table.add_row(name, split, f"{len(rows):,}", text)
    return table


def _print_finding(finding: Finding, console: Console) -> None:
    line = Text(f"{finding.severity} ", style=STYLES[finding.severity])
    line.append(f"{finding.code} ", style="not bold default")
    line.append(f"{finding.split} {_place(finding)}".strip(), style="not bold not dim cyan")
    line.append(f": {safe_terminal(finding.message)}", style="not bold not dim default")
    console.print(line, soft_wrap=True)


def _place(finding: Finding) -> str:
    """File and id; the id only where the file's name does not tell it."""
    file, item = safe_terminal(finding.file), safe_terminal(finding.id)
    return file if not item or file.endswith(item) else f"{file} [{item}]"


def _plural(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
