"""The board as one self-contained HTML page that needs no network and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.board import charts
from harness.board.records import Record
from harness.board.tables import PAIRED_ENTRIES, SIGNIFICANCE, labels, title
from harness.board.text import duration, percent, points, printable, quantity
from harness.evaluation.resampling import holm

DETAILED_ENTRIES = 200  # a page of more details would take a browser seconds to open; board.json has them all
MAX_CURVES = 60  # learning curves per entry
MAX_CLASSES = 400  # classes per entry and task
TEMPLATES = Path(__file__).parent / "templates"

TASK_NAMES = {
    "classification": "Classification",
    "detection": "Detection",
    "segmentation": "Segmentation",
    "vqa": "VQA",
}


def render(document: Mapping[str, Any], records: Sequence[Record]) -> str:
    """The page.

    Args:
        document: From `board_document`.
        records: The records that it was made from, for what the document leaves out: curves, submissions, provenance.

    Returns:
        HTML whose bytes depend on the arguments only. All text from records is escaped; a content security policy
        allows the page's own style and script and nothing else.
    """
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    script = (TEMPLATES / "board.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_finalize,
    )
    environment.filters |= {"percent": percent, "duration": duration, "quantity": quantity, "points": points}
    names = labels(document)
    order = _order(document)
    anchors = {key: f"entry-{number}" for number, key in enumerate(order[:DETAILED_ENTRIES], start=1)}
    by_id = {record.id: record for record in records}
    entries = {entry["entry"]: entry for entry in document["entries"]}
    return environment.get_template(
        "index.html"
    ).render(
        policy=f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'",
        style=Markup(style),  # noqa: S704 - the package's own file
        script=Markup(script),  # noqa: S704 - the package's own file
        document=document,
        names=names,
        anchors=anchors,
        entries=entries,
        tables=[_table_view(table, document, entries, names, anchors) for table in document["tables"]],
        details=[_details_view(entries[key], anchors[key], names[key], by_id) for key in order[:DETAILED_ENTRIES]],
        left_out=max(0, len(order) - DETAILED_ENTRIES),
        unranked=[entry for entry in document["entries"] if entry["not_ranked_because"]],
        task_names=TASK_NAMES,
    )


def _order(document: Mapping[str, Any]) -> list[str]:
    """Entries as the tables show them, largest table first; those not ranked come last."""
    ranked = [row["entry"] for table in document["tables"] for row in table["rows"]]
    return list(dict.fromkeys([*ranked, *(entry["entry"] for entry in document["entries"])]))


def _table_view(
    table: Mapping[str, Any],
    document: Mapping[str, Any],
    entries: Mapping[str, Any],
    names: Mapping[str, str],
    anchors: Mapping[str, str],
) -> dict[str, Any]:
    scales = {}
    shared = {}
    for task in table["tasks"]:
        card = task["card"]
        cells = [entries[row["entry"]]["tasks"][card] for row in table["rows"]]
        scales[card] = (min(cell["low"] for cell in cells), max(cell["high"] for cell in cells))
        places = Counter(row["tasks"][card]["rank"] for row in table["rows"])
        shared[card] = {place for place, count in places.items() if count > 1}
    rows = []
    for row in table["rows"]:
        entry = entries[row["entry"]]
        cells = []
        for task in table["tasks"]:
            cell, place = entry["tasks"][task["card"]], row["tasks"][task["card"]]
            cells.append(
                {
                    **cell,
                    "rank": place["rank"],
                    "shared": place["rank"] in shared[task["card"]],
                    "tied_with": names[place["tied_with"]],
                    "bar": charts.interval_bar(cell["value"], cell["low"], cell["high"], scales[task["card"]]),
                }
            )
        relative = entry["delta_m"] if set(entry["baselines"]) == set(scales) else None
        rows.append(
            {
                **entry,
                **row,
                "relative": relative,
                "name": names[row["entry"]],
                "anchor": anchors.get(row["entry"]),
                "cells": cells,
            }
        )
    changes = [row["relative"] for row in rows if row["relative"] is not None]
    extent = max((max(abs(change["low"]), abs(change["high"])) for change in changes), default=0.0)
    for row in rows:
        change = row["relative"]
        row["relative_bar"] = charts.relative_bar(change, extent) if change is not None else ""
    return {
        "title": title(table),
        "tasks": table["tasks"],
        "relative": bool(changes),
        "rows": rows,
        "scatter": _scatter(table, entries, names, anchors),
        "duels": _duels(table, document, names),
        "pair_limit": PAIRED_ENTRIES if len(table["rows"]) > PAIRED_ENTRIES else 0,
    }


def _scatter(
    table: Mapping[str, Any], entries: Mapping[str, Any], names: Mapping[str, str], anchors: Mapping[str, str]
) -> Markup:
    marks = []
    for row in table["rows"]:
        seconds = entries[row["entry"]]["cost"]["train_seconds"]
        if seconds and seconds > 0 and row["entry"] in anchors:
            marks.append((printable(names[row["entry"]]), anchors[row["entry"]], seconds, row["mean_value"]))
    if len(marks) < 2:
        return Markup("")
    quality = "mean over tasks" if len(table["tasks"]) > 1 else title(table)
    return charts.scatter(marks, "training time in seconds, logarithmic", f"{quality}, %")


def _duels(table: Mapping[str, Any], document: Mapping[str, Any], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """For each of the first entries its paired differences to each other one, Holm corrected within the task."""
    members = [row["entry"] for row in table["rows"][:PAIRED_ENTRIES]]
    cards = [task["card"] for task in table["tasks"]]
    inside = set(members)
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for card in cards:
        pairs = [p for p in document["pairs"] if p["card"] == card and p["a"] in inside and p["b"] in inside]
        corrected = holm([pair["p_value"] for pair in pairs])
        for pair, p_holm in zip(pairs, corrected, strict=True):
            here = {**pair, "p_holm": p_holm}
            found[pair["a"], pair["b"], card] = here
            found[pair["b"], pair["a"], card] = {
                **here, "difference": -pair["difference"], "low": -pair["high"], "high": -pair["low"],
            }  # fmt: skip
    ends = {
        card: max((max(abs(f["low"]), abs(f["high"])) for key, f in found.items() if key[2] == card), default=0.0)
        for card in cards
    }

    def cell(a: str, b: str, card: str) -> dict[str, Any]:
        pair = found[a, b, card]
        clear = pair["p_holm"] < SIGNIFICANCE
        bar = charts.forest_bar(pair["difference"], pair["low"], pair["high"], ends[card], clear)
        return {**pair, "decided": clear, "bar": bar}

    return [
        {
            "name": names[a],
            "lines": [
                {"name": names[b], "cells": [cell(a, b, card) for card in cards]} for b in members if b != a
            ],
        }
        for a in members
        if len(members) > 1
    ]  # fmt: skip


def _details_view(entry: Mapping[str, Any], anchor: str, name: str, by_id: Mapping[str, Record]) -> dict[str, Any]:
    records = [by_id[identity] for identity in entry["records"]]
    first = records[0]
    curve_names = sorted({curve for record in records for curve in record.curves})[:MAX_CURVES]
    provenance = [
        (field, ", ".join(values))
        for field in (
            "version",
            "commit",
            "python",
            "platform",
            "hardware",
            "threads",
            "started",
            "finished",
            "command",
        )
        if (values := _distinct([getattr(record.provenance, field) for record in records]))
    ]
    if any(record.provenance.dirty for record in records):
        provenance.insert(2, ("uncommitted changes", "yes"))
    packages = ", ".join(f"{key} {value}" for key, value in sorted(first.provenance.packages.items()))
    return {
        "anchor": anchor,
        "name": name,
        "entry": entry,
        "curves": [
            (curve, charts.line_plot(printable(curve), {r.seed: r.curves[curve] for r in records if curve in r.curves}))
            for curve in curve_names
        ],
        "classes": {card: list(task["per_class"].items())[:MAX_CLASSES] for card, task in entry["tasks"].items()},
        "provenance": [*provenance, *([("packages", packages)] if packages else [])],
        "submission": _yaml(first.submission) if first.submission is not None else "",
        "seeds": ",".join(str(seed) for seed in entry["seeds"]),
    }


def _distinct(values: Sequence[Any]) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values if value not in (None, "")))


def _yaml(submission: Mapping[str, Any]) -> str:
    return str(yaml.dump(submission, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110))


class _Dumper(yaml.SafeDumper):
    """Without aliases: a submission that says the same thing twice is shown saying it twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _finalize(value: Any) -> Any:
    """Text from records never carries invisible, control or direction-changing characters into the page."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
