"""What a record may say of how alike its tasks are: every number in its bounds, every pair of tasks once."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from harness.board.records import Record
from harness.board.schema import SubsetRun

PAIR = {"a": "one", "b": "two", "cka": 0.5, "cka_debiased": 0.4}
FEATURES = {**PAIR, "pearson": 0.1, "identical": False}
INFORMATION = {"nats": 0.1, "null_mean": 0.0, "null_high": 0.2, "p_value": 0.3}


def section(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"images": 24, "features": [FEATURES], "outputs": [{**PAIR, "information": INFORMATION}]}
    return found | changes


def record(builder: Any, right: Any, relatedness: Any, **fields: Any) -> Record:
    made, _ = builder.record("x", {"one": right(1, 3), "two": right(2, 3)}, **fields)
    document = made.model_dump(mode="json") | {"relatedness": relatedness}
    return Record.model_validate_json(orjson.dumps(document), strict=True)


def test_a_section_is_read_back_as_it_was_written(builder: Any, right: Any) -> None:
    made = record(builder, right, section(tokens=[FEATURES]))
    assert Record.model_validate_json(made.model_dump_json(), strict=True) == made
    assert made.relatedness is not None
    assert made.relatedness.outputs[0].information is not None


def test_an_undefined_likeness_is_none(builder: Any, right: Any) -> None:
    from harness.board.related import Likeness

    assert Likeness.model_validate({**FEATURES, "cka": math.nan}).cka is None
    assert record(builder, right, section(features=[{**FEATURES, "cka": None}])).relatedness is not None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"features": [{**FEATURES, "cka": 1.1}]}, "features.0.cka"),
        ({"features": [{**FEATURES, "cka": -0.1}]}, "features.0.cka"),
        ({"features": [{**FEATURES, "pearson": -1.1}]}, "features.0.pearson"),
        ({"features": [{**FEATURES, "identical": True}]}, "cka: is 0.5, but what is identical has 1"),
        ({"features": []}, "relatedness.features: must hold each pair of one, two once"),
        ({"features": [FEATURES, {**FEATURES, "a": "two", "b": "one"}]}, "must hold each pair"),
        ({"features": [{**FEATURES, "b": "one"}]}, "must hold each pair"),
        ({"outputs": [{**PAIR, "b": "three", "information": None}]}, "relatedness.outputs: must hold each pair"),
        ({"outputs": [{**PAIR, "information": {**INFORMATION, "p_value": 0.0}}]}, "p_value"),
        ({"outputs": [{**PAIR, "information": {**INFORMATION, "nats": "much"}}]}, "nats"),
        ({"images": 1}, "images"),
        ({"version": 2}, "version"),
        ({"more": 1}, "more"),
    ],
)
def test_numbers_that_cannot_be_are_refused(builder: Any, right: Any, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        record(builder, right, section(**changes))
    assert says in str(caught.value).replace("\n", ".")


def test_no_cosine_lies_beyond_one(builder: Any, right: Any) -> None:
    record(builder, right, None, curves={"cosine/one|two": [(0, -1.0), (1, None)], "weight/one": [(0, 3.0)]})
    with pytest.raises(ValidationError, match=r"cosine/one\|two"):
        record(builder, right, None, curves={"cosine/one|two": [(0, 1.5)]})


@pytest.mark.parametrize("tasks", [["one", "two"], ["three"], []])
def test_a_subset_holds_some_of_the_tasks(builder: Any, right: Any, tasks: list[str]) -> None:
    with pytest.raises(ValidationError):
        record(builder, right, None, subsets=[SubsetRun(tasks=tasks, fingerprint="0" * 12)])
    one = SubsetRun(tasks=["one"], fingerprint="0" * 12)
    with pytest.raises(ValidationError, match="no two the same ones"):
        record(builder, right, None, subsets=[one, one])


def test_a_record_that_names_its_subsets_has_the_numbers_of_one_that_does_not(builder: Any, right: Any) -> None:
    marks = {"one": right(1, 3), "two": right(2, 3)}
    old = builder.add("x", marks)
    builder.add("x", marks, subsets=[SubsetRun(tasks=["one"], fingerprint="0" * 12)])  # stored in its place
    new, _ = builder.record("x", marks, subsets=[SubsetRun(tasks=["one"], fingerprint="0" * 12)])
    assert old != new
    assert old.deterministic() == new.deterministic()
