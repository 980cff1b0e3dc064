"""By which rule a rerun agrees with what is stored."""

from __future__ import annotations

from typing import Any

import pytest

from harness.board.agreement import TaskAgreement, agreement


def agree(builder: Any, stored: list[list[bool]], again: list[list[bool]], **changes: Any) -> TaskAgreement:
    """Records of several seeds against those of their rerun, whose protocol may be changed."""
    before = [builder.record("a", {"one": marks}, seed)[0] for seed, marks in enumerate(stored)]
    after = [builder.record("a", {"one": marks}, seed, protocol=changes)[0] for seed, marks in enumerate(again)]
    results = [{"one": builder.task("one", marks)[1]} for marks in again]
    (outcome,) = agreement(before, after, results)
    return outcome


def test_equal_statistics_agree_without_any_interval(builder: Any, right: Any) -> None:
    outcome = agree(builder, [right(3, 9)], [right(3, 9)])
    assert (outcome.rule, outcome.agrees) == ("bit-equal statistics", True)
    assert outcome.low == outcome.high == outcome.stored == outcome.rerun


def test_equal_numbers_of_other_images_are_not_called_bit_equal(builder: Any, right: Any) -> None:
    outcome = agree(builder, [right(3, 9)], [right(3, 9)[::-1]])
    assert (outcome.rule, outcome.agrees) == ("interval over images", True)


def test_one_seed_agrees_within_the_interval_over_images_of_the_rerun(builder: Any, right: Any) -> None:
    near, far = (agree(builder, [right(n, 100)], [right(50, 100)]) for n in (55, 75))
    assert near.rule == far.rule == "interval over images"
    assert near.agrees
    assert not far.agrees
    assert near.low == pytest.approx(0.4, abs=0.02)  # 0.5 ± 1.96 sqrt(0.25 / 100)
    assert near.high == pytest.approx(0.6, abs=0.02)


def test_several_seeds_agree_within_students_interval_for_the_mean_of_as_many_further_runs(
    builder: Any, right: Any
) -> None:
    # Rerun: 0.48, 0.50, 0.52: s = 0.02; t(0.975, 2) = 4.3027; half width = 4.3027 * 0.02 * sqrt(2 / 3) = 0.07026.
    again = [right(n, 100) for n in (48, 50, 52)]
    inside = agree(builder, [right(57, 100)] * 3, again)
    outside = agree(builder, [right(58, 100)] * 3, again)
    assert inside.rule == "t interval over seeds"
    assert inside.low == pytest.approx(0.5 - 0.07026, abs=1e-5)
    assert inside.high == pytest.approx(0.5 + 0.07026, abs=1e-5)
    assert inside.agrees
    assert not outside.agrees


def test_a_wide_spread_of_the_stored_seeds_does_not_excuse_a_difference(builder: Any, right: Any) -> None:
    stored = [right(n, 100) for n in (40, 70, 100)]
    assert not agree(builder, stored, [right(n, 100) for n in (49, 50, 51)]).agrees


def test_equal_numbers_under_another_protocol_do_not_agree(builder: Any, right: Any) -> None:
    outcome = agree(builder, [right(3, 9)], [right(3, 9)], card_version="2")
    assert not outcome.agrees
    assert outcome.reason == "the protocols differ"
