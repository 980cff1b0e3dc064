"""Δm on the board: against which baselines, over which seeds, and when it cannot be told."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from harness import api
from harness.board.compare import compare
from harness.board.page import verify, write_board
from harness.board.records import Cost
from harness.board.tables import board_document, markdown

BASES = {"one": "1" * 12, "two": "2" * 12}


def entry(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in document["entries"] if one["name"] == name)
    return found


def test_delta_m_is_against_the_baselines_that_the_record_names_whatever_they_are_called(
    builder: Any, right: Any
) -> None:
    builder.add("joint", {"one": right(60, 100), "two": right(40, 100)}, baselines=BASES)
    builder.add("anything", {"one": right(50, 100)}, fingerprint=BASES["one"])
    builder.add("else", {"two": right(50, 100)}, fingerprint=BASES["two"])
    builder.add("other", {"two": right(10, 100)})
    document = board_document(builder.board)
    found = entry(document, "joint")
    assert found["baselines"] == {"one": f"anything@{BASES['one']}", "two": f"else@{BASES['two']}"}
    assert found["baselines_missing"] == []
    assert found["delta_m"]["value"] == pytest.approx(100 * (0.1 / 0.5 - 0.1 / 0.5) / 2)
    assert found["delta_m"]["low"] < 0 < found["delta_m"]["high"]
    against = compare(builder.board, "joint", "anything,else")
    assert against.delta_m is not None
    change = dict(found["delta_m"])
    assert change.pop("seeds") == found["seeds"]
    assert change == pytest.approx(against.delta_m.model_dump(exclude={"tasks"}), abs=1e-11)
    assert "+0.00 [" in markdown(document)
    write_board(builder.board)
    page = (builder.board / "index.html").read_text()
    shown = [round(found["delta_m"][key], 4) for key in ("value", "low", "high")]
    assert orjson.dumps({"change": shown}).decode()[1:-1] in page
    assert verify(builder.board) == []
    assert api.missing_baselines(builder.board, [builder.record("joint", {"one": [True]})[0]]) == []


@pytest.mark.parametrize(
    ("changes", "card"),
    [
        ({"fingerprint": "3" * 12}, "two"),  # of another recipe
        ({"fingerprint": BASES["two"], "protocol": {"split": "test"}}, "two"),  # scored elsewhere
        ({"fingerprint": BASES["two"], "rankable": False, "unrankable_because": ["a smoke run"]}, "two"),
    ],
)
def test_a_baseline_that_is_not_comparable_is_missing(
    builder: Any, right: Any, changes: dict[str, Any], card: str
) -> None:
    joint = builder.add("joint", {"one": right(60, 100), "two": right(40, 100)}, baselines=BASES)
    builder.add("a", {"one": right(50, 100)}, fingerprint=BASES["one"])
    builder.add("b", {"two": right(50, 100)}, **changes)
    write_board(builder.board)
    found = entry(board_document(builder.board), "joint")
    assert found["delta_m"] is None
    assert found["baselines_missing"] == [card]
    (sentence,) = api.missing_baselines(builder.board, [joint])
    assert f"({card}); --with-baselines trains them" in sentence


@pytest.mark.parametrize(
    ("real", "forged"),
    [
        ({"trust": "rescored", "seeds": [0]}, {"trust": "reported", "seeds": [0, 1, 2]}),  # what is proven comes first
        ({"trust": "reported", "seeds": [0, 1]}, {"trust": "reported", "seeds": [1, 7, 8, 9]}),  # then seeds in common
    ],
)
def test_a_copy_of_a_baseline_with_an_earlier_name_does_not_stand_for_it(
    builder: Any, right: Any, real: dict[str, Any], forged: dict[str, Any]
) -> None:
    for seed in (0, 1):
        builder.add("joint", {"one": right(60, 100), "two": right(40, 100)}, seed, baselines=BASES)
    for name, hits, fields in (("aaa", 1, forged), ("zzz", 50, real)):
        for seed in fields["seeds"]:
            builder.add(name, {"one": right(hits, 100)}, seed, fingerprint=BASES["one"], trust=fields["trust"])
    builder.add("else", {"two": right(50, 100)}, fingerprint=BASES["two"])
    found = entry(board_document(builder.board), "joint")
    assert found["baselines"]["one"] == f"zzz@{BASES['one']}"
    assert found["delta_m"]["value"] == pytest.approx(0)


def test_an_entry_of_several_tasks_is_nobodys_single_task_baseline(builder: Any, right: Any) -> None:
    builder.add("joint", {"one": right(60, 100), "two": right(40, 100)}, baselines=BASES)
    builder.add("a", {"one": right(50, 100), "two": right(50, 100)}, fingerprint=BASES["one"])
    assert entry(board_document(builder.board), "joint")["baselines_missing"] == ["one", "two"]


def test_only_seeds_that_all_sides_have_are_compared(builder: Any, right: Any) -> None:
    for seed, hits in enumerate((60, 90)):
        builder.add("joint", {"one": right(hits, 100), "two": right(hits, 100)}, seed=seed, baselines=BASES)
    builder.add("a", {"one": right(50, 100)}, fingerprint=BASES["one"])
    for seed in range(2):
        builder.add("b", {"two": right(50, 100)}, seed=seed, fingerprint=BASES["two"])
    found = entry(board_document(builder.board), "joint")
    assert found["delta_m"]["value"] == pytest.approx(20)  # of seed 0 alone
    assert found["delta_m"]["seeds"] == [0]
    assert "] (seed 0)" in markdown(board_document(builder.board))
    write_board(builder.board)
    assert '"changeSeeds":"seed 0"' in (builder.board / "index.html").read_text()


def test_a_baseline_of_zero_gives_no_delta_m(builder: Any, right: Any) -> None:
    builder.add("joint", {"one": right(60, 100), "two": right(40, 100)}, baselines=BASES)
    builder.add("a", {"one": right(0, 100)}, fingerprint=BASES["one"])
    builder.add("b", {"two": right(50, 100)}, fingerprint=BASES["two"])
    found = entry(board_document(builder.board), "joint")
    assert (found["delta_m"], found["baselines_missing"]) == (None, [])


@pytest.mark.parametrize(("ours", "efficiency"), [(1100, 20 / 10), (900, -20 / 10), (1000, None), (None, None)])
def test_parameter_efficiency_is_delta_m_per_percent_of_added_parameters(
    builder: Any, right: Any, ours: int | None, efficiency: float | None
) -> None:
    builder.add("big", {"one": right(60, 100)}, cost=Cost(parameters=ours))
    builder.add("small", {"one": right(50, 100)}, cost=Cost(parameters=1000))
    found = compare(builder.board, "big", "small").per_parameter
    assert (found is None) == (efficiency is None)
    if found is not None:
        assert found.value == pytest.approx(efficiency)
        assert found.low <= found.value <= found.high
