"""The part of a study's report on corrupted images and training images, as Markdown and as rows of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.board.charts import forest_bar
from harness.board.text import DASH, percent, points, safe_markdown

TITLES = {"drops": "On corrupted images", "gaps": "On training images"}
NOTES = {
    "drops": "Drop: the clean number minus its mean over corruptions. Differences of drops are taken on the same images"
    " and seeds; below 0 the arm loses less than the one that it is compared with. A network that is worse on clean"
    " images has less to lose: read drops beside the numbers above.",
    "gaps": "Gap: the number on training images, without augmentation, minus that on the evaluation split. Differences"
    " of gaps are taken on the same images and seeds; below 0 the arm's gap is smaller. A smaller gap is no merit by"
    " itself: a network that has learned nothing has none.",
}
_MORE = (
    " Percentage points with 95% intervals; p-values are corrected over all rows of this table (Holm 1979), apart from"
    " those of the claims and differences."
)


def markdown(report: Mapping[str, Any]) -> list[str]:
    """Lines of the report; none where no record has been scored on such images."""
    lines: list[str] = []
    for table in tables(report):
        header = ["arm", "compared with", "task", table["label"], "of", "difference", "95% interval", "p (Holm)"]
        header += ["outcome", "by seed"]
        lines += [f"## {table['title']}", "", table["note"], "", _row(header), "|" + " --- |" * len(header)]
        for row in table["rows"]:
            cells = [safe_markdown(row["arm"]), safe_markdown(row["against"] or ""), safe_markdown(row["card"])]
            cells += [f"{points(row['value'])}{_interval(row)}", safe_markdown(row["of"])]
            one = row["difference"]
            if one is not None:
                cells += [points(one["value"]), f"{points(one['low'])} to {points(one['high'])}"]
                cells += [
                    f"{one['p_holm']:.3f}",
                    one["verdict"],
                    " ".join(points(value, 1) for value in one["by_seed"]),
                ]
            lines.append(_row([*cells, *[""] * (len(header) - len(cells))]))
        lines.append("")
    for sentence in (report["robustness"] or {}).get("left_out", ()):
        lines.append(f"- {safe_markdown(sentence)}")
    return [*lines, ""] if lines and lines[-1] else lines


def tables(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tables that there are: title, note, label of the number, and rows with bars on a scale per task."""
    found = report["robustness"]
    if found is None:
        return []
    return [
        {
            "key": key,
            "title": TITLES[key],
            "label": label,
            "note": NOTES[key] + _corruptions(found[key], key) + _MORE,
            "rows": _rows(found[key], label),
        }
        for key, label in (("drops", "drop"), ("gaps", "gap"))
        if found[key]
    ]


def _corruptions(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    """Which corruptions, where these are the same in all rows."""
    if key != "drops":
        return ""
    known = {(tuple(row["kinds"]), tuple(row["severities"])) for row in rows}
    if len(known) > 1:
        return " Kinds and severities differ between rows."
    ((kinds, severities),) = known
    return f" {len(kinds)} kinds ({', '.join(kinds)}), severities {', '.join(map(str, severities))}."


def _rows(rows: Sequence[Mapping[str, Any]], label: str) -> list[dict[str, Any]]:
    reach: dict[str, float] = {}
    for row in rows:
        if (one := row["difference"]) is not None:
            reach[row["card"]] = max(reach.get(row["card"], 0.0), abs(one["low"]), abs(one["high"]))
    return [
        {**row, "value": row[label], "of": _of(row), "bar": _bar(row["difference"], reach.get(row["card"], 0.0), label)}
        for row in rows
    ]


def _of(row: Mapping[str, Any]) -> str:
    """What the number is to be read against."""
    if "hardest" in row:
        relative = "" if row["relative"] is None else f"{percent(row['relative'], 0)}% of the clean number; "
        return f"{relative}most under {row['hardest']}"
    return f"{percent(row['value'])} on {row['images']:,} training images"


def _bar(one: Mapping[str, Any] | None, reach: float, label: str) -> Any:
    if one is None:
        return ""
    clear = label == "drop" and one["verdict"] != "not told apart"  # no gap is better than another by itself
    return forest_bar(one["value"], one["low"], one["high"], reach, clear, less_is_better=True)


def _interval(row: Mapping[str, Any]) -> str:
    return "" if row["low"] is None else f" [{points(row['low'])}, {points(row['high'])}]"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell or DASH for cell in cells) + " |"
