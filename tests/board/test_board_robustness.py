"""Drops and gaps in records, on the board and side by side."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError
from rich.console import Console

from harness.board.compare import compare
from harness.board.page import verify, write_board
from harness.board.records import Record, read_records, write_record
from harness.board.robustness import sentences
from harness.board.schema import Robustness, TaskResult, TrainGap
from harness.evaluation.drops import mean_drop
from harness.terminal import print_comparison

CLEAN, FOG, JPEG = 90, 60, 70


def robustness(builder: Any, clean: Sequence[bool], *versions: Sequence[bool], **fields: Any) -> Robustness:
    """Of two kinds under one severity, as a run makes it."""
    results = [builder.task("one", marks)[1] for marks in (clean, *versions)]
    drop = mean_drop(results[0], results[1:])
    return Robustness(
        **{
            "version": 1,
            "kinds": ["fog", "jpeg"],
            "severities": [3],
            "values": {"fog": [drop.values[0]], "jpeg": [drop.values[1]]},
            "drop": drop.drop,
            "low": drop.interval.low,
            "high": drop.interval.high,
            "relative": drop.relative,
            "draws": [round(float(value), 9) for value in drop.draws],
        }
        | fields
    )


def add(builder: Any, name: str, counts: tuple[int, int, int], right: Any, seed: int = 0, **fields: Any) -> Record:
    """An entry with so many of 100 images right: clean, in fog, as JPEG."""
    clean, fog, jpeg = (right(count, 100) for count in counts)
    record, statistics = builder.record(name, {"one": clean}, seed=seed)
    result = record.tasks["one"].model_copy(update={"robustness": robustness(builder, clean, fog, jpeg, **fields)})
    record = record.model_copy(update={"tasks": {"one": result}})
    write_record(builder.board, record, statistics)
    return record


def test_a_record_with_drops_and_gaps_is_read_as_it_was_written(builder: Any, right: Any) -> None:
    record = add(builder, "alpha", (CLEAN, FOG, JPEG), right)
    gap = TrainGap(images=50, value=0.95, gap=0.05, low=0.01, high=0.09)
    whole = record.model_copy(update={"tasks": {"one": record.tasks["one"].model_copy(update={"train_gap": gap})}})
    assert Record.model_validate_json(whole.model_dump_json(), strict=True) == whole
    (read,) = read_records(builder.board)
    assert read == record
    assert read.tasks["one"].robustness.drop == pytest.approx(0.25)  # type: ignore[union-attr]
    assert len(read.tasks["one"].robustness.draws) == 1000  # type: ignore[union-attr]


@pytest.mark.parametrize("field", ["low", "high", "relative"])
def test_a_forged_end_of_a_drop_is_told_by_verify(builder: Any, right: Any, field: str) -> None:
    add(builder, "honest", (CLEAN, FOG, JPEG), right)
    write_board(builder.board)
    assert verify(builder.board) == []
    add(builder, "forged", (CLEAN, FOG, JPEG), right, **{field: 0.123})
    write_board(builder.board)
    (problem,) = verify(builder.board)
    assert f"tasks.one.robustness.{field}: is 0.123, the numbers stored with it give" in problem


def test_a_forged_end_of_a_gap_is_told_by_verify(builder: Any, right: Any) -> None:
    record, statistics = builder.record("forged", {"one": right(9, 10)})
    gap = TrainGap(images=50, value=0.95, gap=0.95 - 0.9, low=0.04, high=0.06, draws=[0.01 * n for n in range(10)])
    task = record.tasks["one"].model_copy(update={"train_gap": gap})
    write_record(builder.board, record.model_copy(update={"tasks": {"one": task}}), statistics)
    write_board(builder.board)
    problems = verify(builder.board)
    assert [p.partition("tasks.one.")[2].partition(":")[0] for p in problems] == ["train_gap.low", "train_gap.high"]


def test_a_record_of_before_is_valid_and_the_board_says_nothing_new_of_it(builder: Any, right: Any) -> None:
    builder.add("old", {"one": right(5, 10)})
    (path,) = builder.board.glob("records/*/*/record.json")
    document = json.loads(path.read_text())
    for key in ("robustness", "train_gap"):
        del document["tasks"]["one"][key]
    path.write_text(json.dumps(document))
    write_board(builder.board)
    task = orjson.loads((builder.board / "board.json").read_bytes())["entries"][0]["tasks"]["one"]
    assert not {"robustness", "train_gap"} & task.keys()
    assert "corrupted" not in (builder.board / "index.html").read_text()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("drop", 0.3, "the numbers beside it give"),
        ("drop", None, "the numbers beside it give"),
        ("values", {"fog": [0.6]}, "must be the kinds"),
        ("values", {"fog": [0.6, 0.5], "jpeg": [0.7]}, "2 numbers for 1 severities"),
        ("kinds", ["<b>", "jpeg"], "pattern"),
    ],
)
def test_a_drop_that_its_own_numbers_do_not_give_is_refused(
    builder: Any, right: Any, field: str, value: Any, message: str
) -> None:
    good = add(builder, "alpha", (CLEAN, FOG, JPEG), right).tasks["one"].model_dump()
    good["robustness"][field] = value
    with pytest.raises(ValidationError, match=message):
        TaskResult.model_validate(good)


def test_a_gap_that_is_not_train_minus_test_is_refused(builder: Any, right: Any) -> None:
    result, _ = builder.task("one", right(80, 100))
    gap = {"images": 9, "value": 0.95, "low": None, "high": None}
    assert TaskResult.model_validate(result.model_dump() | {"train_gap": gap | {"gap": 0.15}})
    with pytest.raises(ValidationError, match=r"train_gap\.gap"):
        TaskResult.model_validate(result.model_dump() | {"train_gap": gap | {"gap": -0.15}})


def test_drops_are_compared_on_the_same_images_and_the_smaller_one_wins(builder: Any, right: Any) -> None:
    add(builder, "weak", (CLEAN, 40, 50), right)
    add(builder, "strong", (CLEAN, 80, 84), right)
    outcome = compare(builder.board, "strong", "weak")
    (drop,) = outcome.drops
    assert drop.a == pytest.approx(0.08)
    assert drop.b == pytest.approx(0.45)
    assert drop.difference == pytest.approx(-0.37)
    assert drop.low < -0.37 < drop.high < 0
    assert drop.p_holm < 0.05
    assert "A loses less, by 37.0 points" in " ".join(outcome.verdict)
    mirrored = compare(builder.board, "weak", "strong")
    assert "B loses less, by 37.0 points" in " ".join(mirrored.verdict)
    console = Console(record=True, width=160)
    print_comparison(outcome, console)
    assert "drop on corrupted images" in console.export_text()


def test_equal_drops_at_different_heights_cannot_be_told_apart(builder: Any, right: Any) -> None:
    """It is the drops that are compared and not the corrupted numbers, which differ by 20 points here."""
    add(builder, "high", (90, 70, 70), right)
    add(builder, "low", (70, 50, 50), right)
    (drop,) = compare(builder.board, "high", "low").drops
    assert drop.difference == pytest.approx(0)
    assert "cannot be told apart" in drop.verdict


@pytest.mark.parametrize(
    ("fields", "word"),
    [({"kinds": ["snow", "jpeg"]}, "kinds"), ({"severities": [4]}, "severities"), ({"version": 2}, "versions")],
)
def test_drops_under_different_corruptions_are_not_compared_and_it_is_said(
    builder: Any, right: Any, fields: dict[str, Any], word: str
) -> None:
    add(builder, "alpha", (CLEAN, FOG, JPEG), right)
    if "kinds" in fields:
        fields = fields | {"values": {"snow": [0.6], "jpeg": [0.7]}}
    add(builder, "beta", (CLEAN, FOG, JPEG), right, **fields)
    outcome = compare(builder.board, "alpha", "beta")
    assert outcome.drops == []
    assert f"under different {word} of corruptions" in " ".join(outcome.verdict)


def test_an_entry_without_drops_is_compared_in_all_else(builder: Any, right: Any) -> None:
    add(builder, "alpha", (CLEAN, FOG, JPEG), right)
    builder.add("plain", {"one": right(80, 100)})
    outcome = compare(builder.board, "plain", "alpha")
    assert outcome.drops == []
    assert "drops are not compared: only B has them" in " ".join(outcome.verdict)
    assert outcome.tasks[0].paired.difference == pytest.approx(-0.1)


def test_the_board_shows_drops_over_seeds_and_verifies(builder: Any, right: Any) -> None:
    for seed, counts in enumerate([(90, 60, 70), (88, 50, 70)]):
        add(builder, "alpha", counts, right, seed)
    write_board(builder.board)
    task = orjson.loads((builder.board / "board.json").read_bytes())["entries"][0]["tasks"]["one"]
    assert task["robustness"]["values"] == {"fog": [0.55], "jpeg": [0.7]}
    assert task["robustness"]["drop"] == pytest.approx((0.25 + 0.28) / 2)
    assert task["robustness"]["low"] < 0.265 < task["robustness"]["high"]
    assert task["robustness"]["relative"] == pytest.approx((0.25 / 0.9 + 0.28 / 0.88) / 2)
    page = (builder.board / "index.html").read_text()
    assert re.search(r"drop on corrupted images.{1,9}26\.50 \(", page)
    assert verify(builder.board) == []


def test_the_result_is_told_in_words(builder: Any, right: Any) -> None:
    record = add(builder, "alpha", (CLEAN, FOG, JPEG), right)
    gap = TrainGap(images=1500, value=0.95, gap=0.05, low=0.01, high=0.09)
    task = record.tasks["one"].model_copy(update={"train_gap": gap})
    text, other = sentences(record.model_copy(update={"tasks": {"one": task}}))
    assert other == "one: train-test gap of top1: +5.00 points [1.00, 9.00] (1,500 training images)"
    assert "drop of top1 on corrupted images: 25.00 points [" in text
    assert text.endswith("28% of the clean number; lowest under fog")


def test_a_board_is_written_without_the_corruptions_themselves(builder: Any, right: Any, tmp_path: Path) -> None:
    """Nothing of a record's folder grows but the document: statistics of corrupted images are not stored."""
    record = add(builder, "alpha", (CLEAN, FOG, JPEG), right)
    plain = builder.add("plain", {"one": right(CLEAN, 100)})
    sizes = [(builder.board / "records" / one.id / "statistics.npz").stat().st_size for one in (record, plain)]
    assert sizes[0] == sizes[1]
