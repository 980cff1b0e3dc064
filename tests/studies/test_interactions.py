"""Differences of differences in a study's report: drawn once, and kept beside the board's own outcomes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from test_studies import CARDS, filled, write

from harness.board.records import read_records
from harness.board.tables import board_document
from harness.studies.report import report
from harness.studies.spec import load_study

ARMS = {
    "plain": {"model.placeholders.count": 0},
    "tokens": {},
    "wide": {"model.placeholders.count": 8},
    "frozen": {"model.placeholders.frozen": True},
}
ASKED = [{"question": "More?", "more": ["tokens", "plain"], "than": ["frozen", "wide"]}]
RATES = {"plain": 0.2, "tokens": 0.6, "wide": 0.4, "frozen": 0.5}


def test_a_report_is_made_from_kept_outcomes_until_a_statistic_changes(tmp_path: Path) -> None:
    board = tmp_path / "board"
    path = write(tmp_path, arms=ARMS, interactions=ASKED, seeds=[0, 1])
    found = filled(
        path,
        board,
        {name: dict.fromkeys(CARDS, rate) for name, rate in RATES.items()},
        {name: [0, 1] for name in RATES},
    )
    board_document(board)
    boards_own = (board / ".cache" / "resampling.json").read_bytes()
    first = report(load_study(path), found, board)
    assert report(load_study(path), found, board) == first
    assert (board / ".cache" / "resampling.json").read_bytes() == boards_own
    (cache,) = (board / ".cache").glob("study-*.json")
    kept = json.loads(cache.read_bytes())
    for outcome in kept.values():
        if "first" in outcome:
            outcome["p_value"] = 1.0
    cache.write_text(json.dumps(kept))
    assert [row["p_value"] for row in report(load_study(path), found, board)["interactions"]] == [1.0, 1.0]
    last = read_records(board)[-1]
    shutil.rmtree(board / "records" / last.id)  # one seed less: other draws of seeds
    again = report(load_study(path), found, board)["interactions"]
    assert [row["seeds"] for row in again] == [[0], [0]]
    assert all(row["p_value"] < 1 for row in again)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"x": 1}'])
def test_a_broken_file_of_outcomes_changes_nothing(tmp_path: Path, content: bytes) -> None:
    board = tmp_path / "board"
    path = write(tmp_path, arms=ARMS, interactions=ASKED, seeds=[0])
    found = filled(
        path, board, {name: dict.fromkeys(CARDS, rate) for name, rate in RATES.items()}, {name: [0] for name in RATES}
    )
    first = report(load_study(path), found, board)
    (cache,) = (board / ".cache").glob("study-*.json")
    cache.write_bytes(content)
    assert report(load_study(path), found, board) == first
