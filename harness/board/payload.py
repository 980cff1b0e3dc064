"""What the page's script works on: the board's document in compact form, and the first entries in full."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import orjson

from harness.board.details import details
from harness.board.records import TRUST, Record
from harness.board.relative import of_seeds
from harness.board.tables import PAIRED_ENTRIES, SIGNIFICANCE, labels, title
from harness.board.text import printable

DETAILED_ENTRIES = 200  # a page of more details would take a browser seconds to open; board.json has them all

_SPECIAL = re.compile(rb"[\x7f-\xff]|\\[ubfr]")  # in JSON: beyond ASCII, or an escaped control character

TASK_NAMES = {
    "classification": "Classification",
    "detection": "Detection",
    "segmentation": "Segmentation",
    "vqa": "VQA",
}


def payload(document: Mapping[str, Any], records: Sequence[Record], board: Path) -> dict[str, Any]:
    """Everything that the page shows, as plain JSON values in which every text is safe to display as text.

    Entries are in the order of the tables, those not ranked last, and are referred to by their place in that order.

    Args:
        document: From `board_document`.
        records: The records that it was made from.
        board: The board's folder.
    """
    order = entry_order(document)
    place = {key: number for number, key in enumerate(order)}
    names = labels(document)
    entries = {entry["entry"]: entry for entry in document["entries"]}
    by_id = {record.id: record for record in records}
    return {
        "resampling": document["resampling"],
        "limits": {"pairs": PAIRED_ENTRIES, "details": DETAILED_ENTRIES, "significance": round(SIGNIFICANCE, 12)},
        "taskNames": TASK_NAMES,
        "trust": TRUST,
        "entries": [_safe(_entry(entries[key], names[key], by_id[entries[key]["records"][0]])) for key in order],
        "tables": [_table(table, place) for table in document["tables"]],
        "tabs": _safe(_tabs(document["tables"])),
        "pairs": [_pair(pair, place) for pair in document["pairs"]],
        "details": [
            _safe(details(entries[key], [by_id[identity] for identity in entries[key]["records"]], board))
            for key in order[:DETAILED_ENTRIES]
        ],
    }


def _pair(pair: Mapping[str, Any], place: Mapping[str, int]) -> list[Any]:
    difference = [_short(pair[key]) for key in ("difference", "low", "high", "p_value")]
    return [place[pair["a"]], place[pair["b"]], pair["card"], *difference, pair["images"], pair["images_needed"]]


def entry_order(document: Mapping[str, Any]) -> list[str]:
    """Entries as the tables show them, largest table first; those not ranked come last."""
    ranked = [row["entry"] for table in document["tables"] for row in table["rows"]]
    return list(dict.fromkeys([*ranked, *(entry["entry"] for entry in document["entries"])]))


def _entry(entry: Mapping[str, Any], name: str, record: Record) -> dict[str, Any]:
    cost = entry["cost"]
    macs = cost["macs"]
    change = entry["delta_m"]
    submission = record.submission or {}
    return {
        "key": entry["entry"],
        "name": name,
        "fingerprint": entry["fingerprint"],
        "seeds": len(entry["seeds"]),
        "trust": entry["trust"],
        "problems": entry["not_ranked_because"],
        "warnings": len(entry["warnings"]),
        "about": _about(submission),
        "backbone": _at(submission, "model", "backbone", "name") or "",
        "cost": {
            "parameters": cost["parameters"],
            "macs": fmean(macs.values()) if macs else None,
            "train_seconds": _short(cost["train_seconds"]),
            "images_per_second": _short(cost["images_per_second"]),
        },
        "macs": macs,
        "change": None if change is None else [round(change[key], 4) for key in ("value", "low", "high")],
        "changeSeeds": "" if change is None else of_seeds(change, entry["seeds"]),
        "changeOf": sorted(entry["baselines"]),
        "tasks": {
            card: [_short(task["value"]), _short(task["low"]), _short(task["high"])]
            for card, task in entry["tasks"].items()
        },
    }


def _about(submission: Mapping[str, Any]) -> list[str]:
    """What kind of model it is, in a few words."""
    count = _at(submission, "model", "placeholders", "count")
    parts = [
        _at(submission, "model", "backbone", "name"),
        f"{count} placeholder tokens" if isinstance(count, int) and count else None,
        _at(submission, "model", "sharing", "name"),
        _at(submission, "training", "balancing", "name"),
        _at(submission, "training", "regime", "name"),
    ]
    plain = {"hard", "equal", "fixed", "none", "joint"}  # what a submission that says nothing has
    return [str(part) for part in parts if part and part not in plain]


def _at(document: Mapping[str, Any], *path: str) -> Any:
    value: Any = document
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, (str, int)) else None


def _table(table: Mapping[str, Any], place: Mapping[str, int]) -> dict[str, Any]:
    cards = [task["card"] for task in table["tasks"]]
    return {
        "title": title(table),
        "tasks": [
            _safe({key: task[key] for key in ("card", "task", "main", "images", "protocol", "protocol_hash")})
            for task in table["tasks"]
        ],
        "rows": [
            {
                "entry": place[row["entry"]],
                "rank": row["rank"],
                "meanRank": round(row["mean_rank"], 4),
                "mean": _short(row["mean_value"]),
                "ranks": [row["tasks"][card]["rank"] for card in cards],
                "leaders": [place[row["tasks"][card]["tied_with"]] for card in cards],
            }
            for row in table["rows"]
        ],
    }


def _tabs(tables: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A tab for each table of several tasks, and one for each task: the table with most entries that has it."""
    tabs = []
    several = [(number, table) for number, table in enumerate(tables) if len(table["tasks"]) > 1]
    for number, table in several:
        count = len(table["tasks"])
        label, note = ("Overall", f"{count} tasks") if len(several) == 1 else (f"{count} tasks", title(table))
        tabs.append({"id": f"overall-{number + 1}", "label": label, "note": note, "table": number, "task": None})
    columns = sorted(
        {(task["task"], task["card"], task["protocol_hash"]) for table in tables for task in table["tasks"]},
        key=lambda column: (list(TASK_NAMES).index(column[0]), *column),
    )
    cards = [card for _, card, _ in columns]
    for task, card, digest in columns:
        number, position = max(
            (
                (number, position)
                for number, table in enumerate(tables)
                for position, one in enumerate(table["tasks"])
                if (one["card"], one["protocol_hash"]) == (card, digest)
            ),
            key=lambda found: (len(tables[found[0]]["rows"]), -len(tables[found[0]]["tasks"])),
        )
        note = card if cards.count(card) == 1 else f"{card} ({digest})"
        tabs.append(
            {"id": f"task-{card}-{digest}", "label": TASK_NAMES[task], "note": note, "table": number, "task": position}
        )
    return tabs


def _short(value: float | None) -> float | None:
    """A number to seven digits: two more than the page ever shows."""
    return None if value is None else float(f"{value:.7g}")


def _safe(value: Any) -> Any:
    """A value whose texts are without invisible, control and direction-changing characters.

    JSON writes control characters as escapes, so most values prove at once that they have none.
    """
    return _printable(value) if _SPECIAL.search(orjson.dumps(value)) else value


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {_printable(key): _printable(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable(child) for child in value]
    return value
