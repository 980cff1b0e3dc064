"""The board as CSV: every number, and no text that a spreadsheet program runs."""

from __future__ import annotations

import csv
import io
from typing import Any

import orjson
import pytest

from harness.board.page import write_board
from harness.board.spreadsheet import COLUMNS, harmless, spreadsheet
from harness.board.tables import board_document, markdown


def lines(builder: Any) -> list[dict[str, str]]:
    write_board(builder.board)
    return list(csv.DictReader(io.StringIO((builder.board / "board.csv").read_bytes().decode(), newline="")))


def test_each_table_has_a_line_for_each_entry_and_task(builder: Any, right: Any) -> None:
    builder.add("both", {"one": right(20, 30), "two": right(10, 30)})
    builder.add("single", {"one": right(25, 30)})
    found = lines(builder)
    assert list(found[0]) == list(COLUMNS)
    assert sorted((line["table"], line["entry"].partition("@")[0], line["card"]) for line in found) == [
        ("one", "both", "one"),
        ("one", "single", "one"),
        ("one + two", "both", "one"),
        ("one + two", "both", "two"),
    ]
    document = orjson.loads((builder.board / "board.json").read_bytes())
    entry = next(entry for entry in document["entries"] if entry["name"] == "single")
    line = next(line for line in found if line["name"] == "single")
    assert float(line["value"]) == entry["tasks"]["one"]["value"]
    assert float(line["low"]) == entry["tasks"]["one"]["low"]
    assert line["spread"] == ""  # one seed has none


def test_entries_that_are_not_ranked_come_last_with_the_reason(builder: Any, right: Any) -> None:
    builder.add("a", {"one": right(20, 30)})
    builder.add("smoke", {"one": right(20, 30)}, rankable=False, unrankable_because=["limited, to 30 images"])
    last = lines(builder)[-1]
    assert (last["name"], last["table"], last["rank"]) == ("smoke", "", "")
    assert last["not_ranked_because"] == "limited, to 30 images"


FORMULAS = [
    "=HYPERLINK(\"http://x\",\"y\")",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1+1",
    "\r\n=1+1",
    "\x1b[31m=1+1",
    "\u200b=1+1",
    "\uff1d1+1",
]  # fmt: skip


@pytest.mark.parametrize("text", FORMULAS)
def test_text_that_would_be_a_formula_is_text(text: str) -> None:
    assert harmless(text).startswith("'")
    assert harmless("plain = text") == "plain = text"


@pytest.mark.parametrize("text", FORMULAS)
def test_what_strangers_write_runs_neither_in_a_spreadsheet_nor_in_markdown_nor_in_a_terminal(
    builder: Any, right: Any, text: str
) -> None:
    reason = f"{text}<b>|[x](javascript:y)\x1b]0;title\x07"
    builder.add("a", {"one": right(2, 9)}, rankable=False, unrankable_because=[reason])
    document = board_document(builder.board)
    (line,) = csv.DictReader(io.StringIO(spreadsheet(document).decode(), newline=""))
    assert line["not_ranked_because"][0] == "'"
    for shown in (spreadsheet(document).decode(), markdown(document)):
        assert not any(ord(character) < 32 and character not in "\r\n" for character in shown)
    assert "<b>" not in markdown(document)
    assert "[x](" not in markdown(document)


def test_negative_numbers_stay_numbers(builder: Any, right: Any) -> None:
    builder.add("a", {"one": right(2, 9)})
    document = board_document(builder.board)
    document["entries"][0]["delta_m"] = {"value": -1.5, "low": -2.0, "high": -1.0}
    assert ",-1.5," in spreadsheet(document).decode()
