"""The board in the repository: its numbers follow from its records, and its pages are those of this code."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.board.page import verify
from harness.board.records import read_records

BOARD = Path(__file__).parents[2] / "leaderboard"


@pytest.mark.slow
def test_the_committed_board_is_what_its_records_give() -> None:
    assert verify(BOARD) == []


def test_committed_records_are_ranked_and_tell_nothing_about_a_machine_but_its_kind() -> None:
    records = read_records(BOARD)
    assert records
    for record in records:
        assert record.rankable, record.unrankable_because
        assert record.provenance.dirty is False
        assert record.provenance.commit
        text = (BOARD / "records" / record.id / "record.json").read_text()
        assert not any(word in text for word in ("/home/", "/tmp/", "/root/", "/Users/", "C:\\\\"))
