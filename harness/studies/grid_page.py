"""A study's grid in its report: every task's numbers as a table of two ways, and what each level does on average."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.analysis.charts import heat
from harness.board import charts
from harness.board.text import DASH, percent, points, safe_markdown
from harness.studies.contrasts import shown_detectable
from harness.studies.parts import clear, extent, forest, row

Report = Mapping[str, Any]


def tables(report: Report) -> dict[str, Any]:
    """What the page shows of a grid.

    Returns:
        ``heats``: a table of heat per task, where there are two factors or more. ``effects``: the main effects with
        bars, those of one task on one scale.
    """
    rows = report["main_effects"]
    extents = {card: extent(one for one in rows if one["card"] == card) for card in _cards(report)}
    effects = [
        {
            **one,
            "bar": forest(one, extents[one["card"]], clear(one)),
            "detectable": shown_detectable(one),
            "each": _each(report, one),
        }
        for one in rows
    ]
    return {"heats": [_heat(report, card) for card in _cards(report)], "effects": effects}


def markdown(report: Report) -> list[str]:
    """The same as lines of Markdown; none where there is no grid of two factors."""
    lines: list[str] = []
    for card in _cards(report):
        columns, rows = _ways(report)
        header = [safe_markdown(card), *map(safe_markdown, columns)]
        lines += [row(header), "|" + " --- |" * len(header)]
        for name, arms in rows:
            cells = [_written(_cell(report, arm, card)) for arm in arms]
            lines.append(row([safe_markdown(name), *cells]))
        lines.append("")
    if not lines:
        return []
    lines = ["## Grid", "", f"{safe_markdown(grid_note(report))} Bold: told apart after correction.", "", *lines]
    if not report["main_effects"]:
        return lines
    header = ["level", "task", "difference", "95% interval", "p (Holm)", "outcome", "detectable", "by combination"]
    lines += ["## On average over the grid", "", EFFECTS, ""]
    lines += [row(header), "|" + " --- |" * len(header)]
    for one in report["main_effects"]:
        cells = [f"{safe_markdown(one['level'])} against {safe_markdown(one['against'])}", safe_markdown(one["card"])]
        cells += [points(one["difference"]), f"{points(one['low'])} to {points(one['high'])}", f"{one['p_holm']:.3f}"]
        cells += [one["verdict"], shown_detectable(one)]
        cells += [", ".join(f"{safe_markdown(name)} {text}" for name, text in _each(report, one))]
        lines.append(row(cells))
    return [*lines, ""]


EFFECTS = (
    "Percentage points with 95% intervals: a level beside the baseline's level of the same factor, averaged over the"
    " combinations of the other factors that ran with both, on the same images. Seeds are the replicates."
)


def grid_note(report: Report) -> str:
    """What a table of two ways shows."""
    first, *others = report["factors"] or [""]
    return (
        f"Percent, mean over seeds, with {first} down and {' and '.join(others)} across; beside it the difference from"
        " the baseline in points, over the seeds that both have."
    )


def _cards(report: Report) -> list[str]:
    """The tasks that arms of the grid have; none where there are no two factors with a run."""
    if len(report["factors"]) < 2:
        return []
    return list(dict.fromkeys(card for arm in report["arms"] if arm["levels"] for card in arm["tasks"]))


def _ways(report: Report) -> tuple[list[str], list[tuple[str, list[Mapping[str, Any]]]]]:
    """Levels of the first factor down, combinations of the others across."""
    first = next(iter(report["factors"]))
    rows: dict[str, list[Mapping[str, Any]]] = {level: [] for level in report["factors"][first]}
    for arm in report["arms"]:
        if arm["levels"]:
            rows[arm["levels"][first]].append(arm)
    columns = [_other_levels(arm["levels"], first) for arm in next(iter(rows.values()))]
    return columns, list(rows.items())


def _heat(report: Report, card: str) -> dict[str, Any]:
    columns, rows = _ways(report)
    found = [(name, [_cell(report, arm, card) for arm in arms]) for name, arms in rows]
    reach = charts.reach(abs(one["difference"]) for _, cells in found for one in cells if one["difference"] is not None)
    shown = [
        (
            name,
            [
                {
                    "kind": "undefined" if cell["value"] is None else heat(cell["difference"], reach),
                    "text": DASH if cell["value"] is None else percent(cell["value"], 1),
                    "small": cell["beside"],
                    "bold": cell["clear"],
                    "title": cell["title"],
                }
                for cell in cells
            ],
        )
        for name, cells in found
    ]
    return {"caption": card, "corner": "", "columns": columns, "rows": shown}


def _cell(report: Report, arm: Mapping[str, Any], card: str) -> dict[str, Any]:
    """An arm's number on a task, and how it differs from the baseline where the study compares the two."""
    task = arm["tasks"].get(card)
    same = [one for one in report["contrasts"] if (one["arm"], one["card"]) == (arm["arm"], card)]
    contrast = next((one for one in same if one["against"] == report["baseline"]), None)
    if task is None or contrast is None:
        beside = "baseline" if task is not None and arm["arm"] == report["baseline"] else ""
        value = task["value"] if task else None
        return {"value": value, "difference": None, "beside": beside, "clear": False, "title": ""}
    interval = f"{points(contrast['low'])} to {points(contrast['high'])}"
    return {
        "value": task["value"],
        "difference": contrast["difference"],
        "beside": points(contrast["difference"], 1),
        "clear": clear(contrast),
        "title": f"{arm['arm']}: 95% interval {interval}, p {contrast['p_holm']:.3f} (Holm)",
    }


def _written(cell: Mapping[str, Any]) -> str:
    if cell["value"] is None:
        return ""
    text = percent(cell["value"], 1) + (f" ({cell['beside']})" if cell["beside"] else "")
    return f"**{text}**" if cell["clear"] else text


def _each(report: Report, effect: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The difference in each combination of the other factors."""
    levels = {arm["arm"]: arm["levels"] for arm in report["arms"]}
    names = [_other_levels(levels[pair[0]], effect["factor"]) for pair in effect["arms"]]
    return list(zip(names, [points(value, 1) for value in effect["by_combination"]], strict=True))


def _other_levels(levels: Mapping[str, str], factor: str) -> str:
    return "-".join(level for name, level in levels.items() if name != factor)
