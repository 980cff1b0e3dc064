from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from harness.board.compare import compare
from harness.board.records import Cost
from harness.errors import HarnessError
from harness.terminal import print_comparison


def test_a_class_on_which_one_entry_is_better_is_told_apart_and_the_others_are_not(builder: Any) -> None:
    # classes red, green and blue take turns; A is right on every red image, B on every third of them
    images = np.arange(600)
    red = images % 3 == 0
    both = images % 7 < 4
    builder.add("a", {"one": red | both})
    builder.add("b", {"one": np.where(red, images % 9 == 0, both)})
    parts = {part.name: part for part in compare(builder.board, "a", "b", by=["class"]).tasks[0].by["class"]}
    assert list(parts) == ["red", "green", "blue"]
    assert (parts["red"].a, parts["red"].b) == (1, pytest.approx(67 / 200))
    assert parts["red"].low < parts["red"].difference < parts["red"].high
    assert parts["red"].told_apart
    assert parts["red"].p_holm == pytest.approx(3 * parts["red"].p_value)
    assert parts["green"].difference == 0
    assert not parts["green"].told_apart
    assert parts["green"].p_holm == 1


def test_without_being_asked_nothing_is_broken_down(builder: Any, right: Any) -> None:
    builder.add("a", {"one": right(60, 200)})
    assert compare(builder.board, "a", "a").tasks[0].by == {}


def test_a_breakdown_that_no_task_has_is_refused_with_those_that_there_are(builder: Any, right: Any) -> None:
    builder.add("a", {"one": right(60, 200)})
    with pytest.raises(HarnessError, match=r"--by size: no task in common has this breakdown.* \(one: class\)"):
        compare(builder.board, "a", "a", by=["size"])
    with pytest.raises(HarnessError, match=r"--by clas: .*did you mean 'class'"):
        compare(builder.board, "a", "a", by=["class", "clas"])


def test_the_table_shows_every_part(builder: Any, right: Any) -> None:
    builder.add("a", {"one": right(60, 200)})
    builder.add("b", {"one": right(90, 200)})
    console = Console(width=100)
    with console.capture() as captured:
        print_comparison(compare(builder.board, "a", "b", by=["class"]), console)
    assert "one by class" in captured.get()
    for name in ("red", "green", "blue"):
        assert name in captured.get()


def test_the_command_prints_the_parts_as_json_and_refuses_unknown_ones(builder: Any, right: Any) -> None:
    builder.add("a", {"one": right(60, 200)})
    builder.add("b", {"one": right(90, 200)})
    command = [sys.executable, "-m", "harness", "compare", "a", "b", "--leaderboard", str(builder.board)]
    done = subprocess.run([*command, "--by", "class", "--json"], capture_output=True, text=True, check=True)
    parts = json.loads(done.stdout)["tasks"][0]["by"]["class"]
    assert [part["name"] for part in parts] == ["red", "green", "blue"]
    assert all(part["low"] <= part["difference"] <= part["high"] for part in parts)
    refused = subprocess.run([*command, "--by", "colour"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: --by colour: no task in common has this breakdown")


def test_costs_stand_side_by_side_where_they_are_known(builder: Any, right: Any) -> None:
    builder.add("a", {"one": right(60, 200)}, cost=Cost(steps=1200, parameters=3_000_000))
    builder.add("b", {"one": right(90, 200)}, cost=Cost(steps=600))
    console = Console(width=100)
    with console.capture() as captured:
        print_comparison(compare(builder.board, "a", "b"), console)
    shown = {
        cells[1].strip(): [cell.strip() for cell in cells[2:5]] for cells in map(_cells, captured.get().splitlines())
    }
    assert shown["steps"] == ["1,200", "600", "2.00"]
    assert shown["parameters"] == ["3,000,000", "unknown", ""]
    assert "train seconds" not in shown


def _cells(line: str) -> list[str]:
    return [*line.split("\N{BOX DRAWINGS LIGHT VERTICAL}"), "", "", "", "", ""]
