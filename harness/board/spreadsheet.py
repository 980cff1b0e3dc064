"""The board as CSV: one line per entry, task and table. Text by strangers stays text in whatever opens it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from harness.board.tables import title
from harness.board.text import safe_terminal

COLUMNS = (
    "table", "rank", "mean_rank", "entry", "name", "fingerprint", "seeds", "trust", "card", "task", "metric",
    "rank_on_task", "value", "low", "high", "spread", "images", "protocol", "delta_m", "parameters", "train_seconds",
    "not_ranked_because",
)  # fmt: skip
# What spreadsheet programs take for the beginning of a formula; the last four are full-width forms of the others.
FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def spreadsheet(document: Mapping[str, Any]) -> bytes:
    """The board's numbers as CSV (RFC 4180, UTF-8), texts quoted and numbers not.

    An entry that stands in several tables has lines in each, because ranks are by table; entries that are not ranked
    come last, without table and rank. Numbers are fractions as in ``board.json``, empty where undefined.

    Args:
        document: From `board_document`.
    """
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, COLUMNS, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\r\n")
    writer.writeheader()
    entries = {entry["entry"]: entry for entry in document["entries"]}
    for table in document["tables"]:
        for row in table["rows"]:
            place = {"table": title(table), "rank": row["rank"], "mean_rank": row["mean_rank"]}
            for task in table["tasks"]:
                rank = row["tasks"][task["card"]]["rank"]
                writer.writerow(_line(entries[row["entry"]], task["card"], place | {"rank_on_task": rank}))
    for entry in document["entries"]:
        if entry["not_ranked_because"]:
            for card in entry["tasks"]:
                writer.writerow(_line(entry, card, {}))
    return buffer.getvalue().encode()


def harmless(text: str) -> str:
    """One line of text that no spreadsheet program takes for a formula, by an apostrophe before it where needed."""
    plain = safe_terminal(text)
    return f"'{plain}" if plain.startswith(FORMULA) else plain


def _line(entry: Mapping[str, Any], card: str, place: Mapping[str, Any]) -> dict[str, Any]:
    task = entry["tasks"][card]
    delta = entry["delta_m"]
    cells = {
        **dict.fromkeys(("table", "rank", "mean_rank", "rank_on_task")),
        **place,
        **{key: entry[key] for key in ("entry", "name", "fingerprint", "trust")},
        **{key: task[key] for key in ("task", "value", "low", "high", "spread", "images")},
        **{key: entry["cost"][key] for key in ("parameters", "train_seconds")},
        "seeds": len(entry["seeds"]),
        "card": card,
        "metric": task["main"],
        "protocol": task["protocol_hash"],
        "delta_m": None if delta is None else delta["value"],
        "not_ranked_because": "; ".join(entry["not_ranked_because"]),
    }
    return {key: harmless(cell) if isinstance(cell, str) else cell for key, cell in cells.items()}
