"""The matrices of an entry's tasks as text: what the page and the Markdown of a board show of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.analysis.charts import heat
from harness.board.relations import TITLES
from harness.board.text import DASH, points

IN_POINTS = ("transfer", "leave_one_out")  # differences of headline numbers
MINUS = "\N{MINUS SIGN}"
BOUNDED = 1.0  # the largest that a cosine, a correlation and CKA can be
MOST_MISSING = 10  # runs that are named one by one

Cell = tuple[str, str, str, bool]  # class of its colour, text, small print, whether its interval excludes 0


def drawn(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """An entry's matrices, ready to be shown.

    Args:
        entry: From the board's document.

    Returns:
        For each matrix ``title``, ``tasks`` (of rows and columns), and ``rows`` of cells, None where no number is.
    """
    interaction = entry.get("interaction") or {"matrices": []}
    return [_drawn(one) for one in [*interaction["matrices"], *entry.get("relations", [])]]


def sentences(entry: Mapping[str, Any]) -> list[str]:
    """What learning together does to each task, and which runs would tell more."""
    interaction = entry.get("interaction")
    if interaction is None:
        return []
    found = []
    for card, one in interaction["together"].items():
        ends = _ends(one, lambda end: points(end, 1))
        said = f"{card}: all tasks together, minus alone: {points(one['value'], 1)} points {ends}"
        found.append(said + _of_seeds(one, entry))
    for card, one in interaction["loss_gain"].items():
        ends = _ends(one, _gain)
        said = f"{card}: Standley's gain of training losses, alone over together minus 1: {_gain(one['gain'])} {ends}"
        found.append(said.rstrip() + _of_seeds(one, entry))
    if missing := missing_sentence(interaction["missing"], f"{entry['name']}@{entry['fingerprint']}"):
        found.append(missing)
    return found


def missing_sentence(missing: Sequence[Mapping[str, Any]], entry: str) -> str:
    """Which runs are missing, and how to come by them; empty if none is."""
    if not missing:
        return ""
    names = [
        " + ".join(one["tasks"]) + (f" (seeds {', '.join(map(str, one['seeds']))})" if one["partly"] else "")
        for one in missing
    ]
    more = f" and {len(names) - MOST_MISSING} more" if len(names) > MOST_MISSING else ""
    shown = "; ".join(names[:MOST_MISSING]) + more
    return f"Missing for all numbers: runs of {shown} (harness analyze {entry} writes the submissions)."


def _gain(value: float) -> str:
    return f"{value:+.3f}".replace("-", MINUS)


def _of_seeds(one: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """Which seeds a number is of, where they are not all of the entry's: those that all runs have."""
    seeds = one["seeds"]
    if len(seeds) == len(entry["seeds"]):
        return ""
    return f", of seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _drawn(matrix: Mapping[str, Any]) -> dict[str, Any]:
    measure, tasks, cells = matrix["measure"], matrix["tasks"], matrix["cells"]
    values = [abs(cell["value"]) for row in cells.values() for cell in row.values()]
    extent = max(values, default=0.0) if measure in (*IN_POINTS, "affinity", "mutual_information") else BOUNDED
    rows = [[_cell(measure, cells.get(row, {}).get(column), extent) for column in tasks] for row in tasks]
    return {"title": TITLES[measure], "tasks": tasks, "rows": rows}


def _cell(measure: str, cell: Mapping[str, Any] | None, extent: float) -> Cell | None:
    if cell is None:
        return None
    value = cell["value"]
    write = _WRITTEN.get(measure, _plain)
    beside = [f"debiased {_plain(cell['debiased'])}"] if cell.get("debiased") is not None else []
    beside += [f"by chance up to {_plain(cell['chance'])}"] if cell.get("chance") is not None else []
    return (
        heat(value, extent),
        write(value),
        " ".join(filter(None, [*beside, _ends(cell, write)])),
        _clear(measure, cell),
    )


def _plain(value: float) -> str:
    return f"{value:.2f}".replace("-", MINUS)


_WRITTEN: dict[str, Callable[[float], str]] = {
    "transfer": lambda value: points(value, 1),
    "leave_one_out": lambda value: points(value, 1),
    "affinity": lambda value: f"{value:+.2g}".replace("-", MINUS),
    "gradient_cosine": lambda value: f"{value:+.2f}".replace("-", MINUS),
}


def _clear(measure: str, cell: Mapping[str, Any]) -> bool:
    """Whether a number differs from nothing: from 0 with its interval, information from what chance gives."""
    if measure == "mutual_information":
        return cell.get("chance") is not None and cell["value"] > cell["chance"]
    if measure.endswith("cka"):  # never below 0
        return False
    return cell["low"] is not None and (cell["low"] > 0 or cell["high"] < 0)


def _ends(one: Mapping[str, Any], write: Callable[[float], str]) -> str:
    return "" if one["low"] is None else f"[{write(one['low'])}, {write(one['high'])}]"


def markdown(entry: Mapping[str, Any], name: str) -> list[tuple[str, list[str], list[list[str]]]]:
    """An entry's matrices as tables: heading, header and rows of cells, all plain text."""
    found = []
    for one in drawn(entry):
        body = []
        for task, row in zip(one["tasks"], one["rows"], strict=True):
            cells = [DASH if cell is None else " ".join(filter(None, cell[1:3])) for cell in row]
            body.append([task, *cells])
        found.append((f"{name}: {one['title']}", ["", *one["tasks"]], body))
    return found
