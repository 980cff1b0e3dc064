from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from harness.atomic import json_bytes
from harness.board.records import Cost, Provenance, Record, parse_record
from harness.board.schema import migrate
from harness.errors import HarnessError


def test_undefined_numbers_are_none_because_json_has_no_nan(builder: Any, right: Any) -> None:
    record, _ = builder.record("a", {"card": right(1, 3)}, curves={"loss": [(0, 2.0), (1, math.nan), (2, math.inf)]})
    assert record.curves["loss"] == [(0, 2.0), (1, None), (2, None)]
    assert record.tasks["card"].metrics["top5"] is None
    assert Record.model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "true", '"0.5"'])
@pytest.mark.parametrize("place", ["curve", "metric", "cost", "submission"])
def test_what_is_no_number_of_json_is_refused_in_a_file_wherever_it_stands(
    builder: Any, right: Any, number: str, place: str
) -> None:
    record, _ = builder.record(
        "a",
        {"card": right(3, 8)},
        curves={"loss": [(1, 123.5)]} if place == "curve" else {},
        cost=Cost(train_seconds=123.5) if place == "cost" else Cost(),
        submission={"rate": 123.5} if place == "submission" else None,
    )
    document = record.model_dump(mode="json")
    if place == "metric":
        document["tasks"]["card"]["metrics"]["top5"] = 123.5
    raw = json_bytes(document)
    assert raw.count(b"123.5") == 1
    parse_record(raw, "here.json")
    changed = raw.replace(b"123.5", number.encode())
    if place == "submission" and number not in ("NaN", "Infinity", "-Infinity"):
        parse_record(changed, "here.json")  # a submission says what it likes, in JSON
        return
    with pytest.raises(HarnessError, match=r"^here\.json: (not valid JSON|.*input should be a valid number, got)"):
        parse_record(changed, "here.json")


@pytest.mark.parametrize(
    ("step", "says"), [(-1, "greater than or equal to 0"), (2**63, "less than or equal to"), (1.5, "integer")]
)
def test_a_step_of_a_curve_is_a_whole_number_of_63_bits(builder: Any, right: Any, step: float, says: str) -> None:
    record, _ = builder.record("a", {"card": right(3, 8)}, curves={"loss": [(123456, 1.0)]})
    raw = record.model_dump_json().encode()
    with pytest.raises(HarnessError, match=rf"^here\.json: curves\.loss\.0\.0: .*{says}"):
        parse_record(raw.replace(b"123456", str(step).encode()), "here.json")
    assert parse_record(raw.replace(b"123456", str(2**63 - 1).encode()), "").curves["loss"][0][0] == 2**63 - 1


def test_a_record_without_a_reason_is_not_unrankable_and_with_one_not_rankable(builder: Any, right: Any) -> None:
    for fields in ({"rankable": False}, {"unrankable_because": ["limited"]}):
        with pytest.raises(ValidationError, match="exactly when rankable is false"):
            builder.record("a", {"card": right(1, 3)}, **fields)


def test_a_task_stands_under_its_own_cards_name(builder: Any, right: Any) -> None:
    task, _ = builder.task("other", right(1, 3))
    with pytest.raises(ValidationError, match="must equal the key 'card'"):
        Record(name="a", fingerprint="0" * 12, seed=0, tasks={"card": task}, provenance=Provenance(version="1"))


def test_a_deeply_nested_submission_is_refused(builder: Any, right: Any) -> None:
    nested: dict[str, Any] = {}
    for _ in range(200):
        nested = {"a": nested}
    with pytest.raises(ValidationError, match="more than 30 levels"):
        builder.record("a", {"card": right(1, 3)}, submission=nested)


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a\n", "a|b", "x" * 101])
def test_a_name_cannot_leave_its_folder(builder: Any, right: Any, name: str) -> None:
    with pytest.raises(ValidationError):
        builder.record(name, {"card": right(1, 3)})


def test_runs_that_differ_in_cost_and_provenance_only_are_equal_in_what_is_deterministic(
    builder: Any, right: Any
) -> None:
    first, _ = builder.record("a", {"card": right(1, 3)}, cost=Cost(train_seconds=1.0))
    again, _ = builder.record(
        "a", {"card": right(1, 3)}, cost=Cost(train_seconds=2.0), provenance=Provenance(version="2", started="later")
    )
    other, _ = builder.record("a", {"card": right(2, 3)})
    assert first != again
    assert first.deterministic() == again.deterministic()
    assert first.deterministic() != other.deterministic()


def test_an_older_document_is_migrated_step_by_step() -> None:
    steps = {1: lambda d: {**d, "b": d["a"] + 1}, 2: lambda d: {k: v for k, v in d.items() if k != "a"}}
    assert migrate({"schema_version": 1, "a": 1}, steps=steps, target=3) == {"schema_version": 3, "b": 2}


@pytest.mark.parametrize(
    ("version", "says"),
    [
        (2, "newer than this harness reads"),
        (0, "not a version"),
        (-5, "not a version"),
        ("1", "must be"),
        (True, "must be"),
    ],
)
def test_a_version_that_this_harness_does_not_know_is_refused_by_file_and_field(version: Any, says: str) -> None:
    with pytest.raises(HarnessError, match=f"^here.json: schema_version: .*{says}"):
        migrate({"schema_version": version}, "here.json")
