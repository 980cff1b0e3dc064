"""The section of a submission: what it refuses, and what it changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from tests_support import document

from harness.errors import HarnessError
from harness.listing import list_rows
from harness.single_task import single_task
from harness.submission import Submission
from harness.training.placeholders.substitution import STRATEGIES
from harness.validation import check


def raw(tasks: Any = None, regime: str = "joint", **section: Any) -> dict[str, Any]:
    found = document()
    found["training"] |= {"placeholders": {"substitution": section or None}, "regime": {"name": regime}}
    return found | ({"tasks": tasks} if tasks else {})


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"strategy": "best"}, "strategy"),
        ({"ratio": 0.1}, "strategy"),
        ({"strategy": "random", "ratio": 0}, "ratio"),
        ({"strategy": "random", "ratio": 1.1}, "ratio"),
        ({"strategy": "random", "folds": 4}, "folds: only strategy: cross_validation has it, not random; leave it out"),
        ({"strategy": "progressive", "every": 9}, "every: only strategy: adaptive has it, not progressive"),
        ({"strategy": "cross_validation", "folds": 1}, "folds"),
        ({"strategy": "adaptive", "temperature": 0}, "temperature"),
        ({"strategy": "adaptive", "held_out": 0.6}, "held_out"),
        ({"strategy": "adaptive", "rate": 1}, "rate"),
    ],
)
def test_a_section_that_makes_no_sense_is_refused(section: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Submission.model_validate(raw(**section))


@pytest.mark.parametrize("regime", ["mt_dnn", "continual", "sequential", "curriculum"])
def test_adaptive_needs_all_tasks_in_a_step_and_the_others_do_not(regime: str) -> None:
    with pytest.raises(ValidationError, match=rf"adaptive compares .* under regime {regime} steps do not train all"):
        Submission.model_validate(raw(regime=regime, strategy="adaptive"))
    for strategy in set(STRATEGIES) - {"adaptive"}:
        Submission.model_validate(raw(regime=regime, strategy=strategy))


def test_off_it_changes_no_fingerprint_and_on_every_key_changes_it() -> None:
    plain = Submission.model_validate(document()).fingerprint()
    assert Submission.model_validate(raw()).fingerprint() == plain
    sections: list[dict[str, Any]] = [{"strategy": name} for name in STRATEGIES]
    sections += [{"strategy": "random", "ratio": 0.2}, {"strategy": "cross_validation", "folds": 3}]
    sections += [{"strategy": "adaptive", key: 0.2} for key in ("temperature", "epsilon", "held_out")]
    sections += [{"strategy": "adaptive", "every": 7}]
    found = {Submission.model_validate(raw(**section)).fingerprint() for section in sections}
    assert len(found | {plain}) == len(sections) + 1


def test_a_single_task_baseline_has_none() -> None:
    plain, replacing = (Submission.model_validate(one) for one in (document(), raw(strategy="random")))
    alone = [single_task(one, "shapes-detection").fingerprint() for one in (plain, replacing)]
    assert alone[0] == alone[1]


def test_every_strategy_is_listed_with_one_line() -> None:
    rows = {row["name"]: row for row in list_rows("placeholders")}
    assert all(rows[f"substitution {name}"]["about"] for name in STRATEGIES)
    assert len({tuple(row) for row in rows.values()}) == 1


@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (raw(document()["tasks"][:1], strategy="random"), "no task has another one whose output could stand for"),
        (raw(document()["tasks"][3:], strategy="random"), "no task has another one whose output could stand for"),
        (raw(strategy="adaptive") | {"evaluation": {"limit": 1}}, "adaptive holds out training images, and shapes-"),
    ],
)
def test_validate_refuses_what_cannot_work(tmp_path: Path, content: dict[str, Any], problem: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(HarnessError, match=problem):
        check(path)


@pytest.mark.usefixtures("tiny_suite")
def test_validate_tells_the_parameters_and_costs_of_the_plain_network(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    reports = []
    for content in (raw(), raw(strategy="random")):
        path.write_text(yaml.safe_dump(content))
        reports.append(check(path))
    assert reports[1]["parameters"].pop("substitution") > 0
    for key in ("parameters", "tasks", "sites"):
        assert reports[1][key] == reports[0][key]
