from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from harness.board.compare import compare, verdict
from harness.board.evidence import Paired
from harness.board.records import Cost
from harness.board.relative import delta_m
from harness.errors import HarnessError


def paired(difference: float, low: float, high: float, needed: int | None = None, p: float = 0.03) -> Paired:
    return Paired(
        difference=difference,
        low=low,
        high=high,
        p_value=p,
        p_method="",
        images=500,
        images_needed=needed,
        paired_seeds=True,
        image_spread=0.01,
    )


def test_delta_m_is_the_mean_relative_change_in_percent_and_higher_is_better() -> None:
    # (0.6 - 0.5) / 0.5 = +20%, (0.3 - 0.4) / 0.4 = -25%, (0.8 - 0.8) / 0.8 = 0: together -5% / 3
    values, baseline = {"a": 0.6, "b": 0.3, "c": 0.8}, {"a": 0.5, "b": 0.4, "c": 0.8}
    assert delta_m(values, baseline) == pytest.approx(-5 / 3)
    assert delta_m({"a": 0.6}, {"a": 0.5}) == pytest.approx(20)
    assert delta_m(baseline, baseline) == 0


@pytest.mark.parametrize(
    ("outcome", "p", "says"),
    [
        (paired(0.012, 0.003, 0.021), 0.01, "A is better by 1.2 points [0.3, 2.1]"),
        (paired(-0.012, -0.021, -0.003), 0.01, "B is better by 1.2 points [0.3, 2.1]"),
        (
            paired(0.01, -0.01, 0.03, 4321),
            0.3,
            "A and B cannot be told apart with 500 images (+1.0 points, 95% interval [-1.0, +3.0]); "
            "about 4,321 would be needed if the difference is what it seems",
        ),
        (
            paired(0.01, 0.001, 0.03),
            0.09,
            "A and B cannot be told apart with 500 images (+1.0 points, 95% interval [+0.1, +3.0]); "
            "the interval alone excludes 0, but not after correction for the number of tasks",
        ),
        (
            paired(0.01, 0.001, 0.03, p=0.06),
            0.06,
            "A and B cannot be told apart with 500 images (+1.0 points, 95% interval [+0.1, +3.0]); "
            "the interval excludes 0, but the test of the difference (p = 0.06) does not",
        ),
        (
            paired(0.01, -0.001, 0.03),
            0.03,
            "A is better by 1.0 points [-0.1, 3.0]; the interval includes 0, but the test of the difference is decided",
        ),
        (paired(0.0, 0.0, 0.0, p=1.0), 1.0, "A and B have the same outcome on each of the 500 images"),
    ],
)
def test_a_verdict_says_who_is_better_by_how_much_or_what_it_would_take(outcome: Paired, p: float, says: str) -> None:
    assert verdict(outcome, p).replace("\N{MINUS SIGN}", "-") == says.replace("\N{MINUS SIGN}", "-")


def test_a_clear_difference_is_told_with_its_values_and_its_delta_m(builder: Any, right: Any) -> None:
    for seed in range(3):
        builder.add("strong", {"one": right(80 + seed, 200), "two": right(150, 200)}, seed=seed, cost=Cost(steps=100))
        builder.add("weak", {"one": right(40 + seed, 200), "two": right(150, 200)}, seed=seed, cost=Cost(steps=50))
    result = compare(builder.board, "strong", "weak")
    one, two = result.tasks
    assert (one.card, one.a.value, one.b.value) == ("one", pytest.approx(0.405), pytest.approx(0.205))
    assert one.paired.difference == pytest.approx(0.2)
    assert one.paired.low < 0.2 < one.paired.high
    assert one.p_holm == pytest.approx(2 * one.paired.p_value)
    assert one.verdict.startswith("A is better by 20.0 points [")
    assert two.verdict == "A and B have the same outcome on each of the 200 images"
    assert result.delta_m is not None
    assert result.delta_m.value == pytest.approx(100 * (0.405 - 0.205) / 0.205 / 2)
    assert 0 < result.delta_m.low < result.delta_m.value < result.delta_m.high
    assert (result.cost_a["steps"], result.cost_b["steps"], result.cost_a["parameters"]) == (100, 50, None)
    assert not any("single seed" in sentence for sentence in result.verdict)
    assert json.loads(json.dumps(result.to_json()))["a"] == result.a


def test_p_is_that_of_swapping_images_and_says_so(builder: Any) -> None:
    # the two differ on 30 images, 20 to 10: swapping those is 30 tosses of a coin, of which 20 or more on one side
    a, b = np.ones(100, bool), np.ones(100, bool)
    a[:10], b[10:30] = False, False
    builder.add("a", {"one": a})
    builder.add("b", {"one": b})
    task = compare(builder.board, "a", "b", draws=4000).tasks[0]
    exact = sum(math.comb(30, k) for k in range(31) if abs(k - 15) >= 5) / 2**30
    assert task.paired.p_value == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 4000))
    assert task.p_holm == task.paired.p_value
    assert task.paired.p_method == "permutation, 4,000 random swaps of images"


def test_p_of_several_seeds_does_not_forget_how_they_scatter(builder: Any, right: Any) -> None:
    for seed, correct in enumerate((20, 60, 100)):
        builder.add("a", {"one": right(correct, 200)}, seed=seed)
        builder.add("b", {"one": right(120 - correct - 30, 200)}, seed=seed)
        builder.add("c", {"one": right(50, 200)}, seed=seed)
    builder.add("c", {"one": right(50, 200)}, seed=3)
    paired, unpaired = (compare(builder.board, "a", name).tasks[0] for name in ("b", "c"))
    assert paired.paired.p_value > 0.3  # swaps of images alone would give 0.001: seeds differ by -30, 30 and 90 images
    assert paired.paired.p_method.endswith("; 3 paired seeds: at least the two-level bootstrap's p")
    assert unpaired.paired.p_method == "two-level bootstrap, because 3 and 4 seeds cannot be paired"


def test_turning_a_comparison_around_turns_its_signs(builder: Any, right: Any) -> None:
    builder.add("x", {"one": right(60, 200)})
    builder.add("y", {"one": right(70, 200)})
    forth, back = compare(builder.board, "x", "y").tasks[0].paired, compare(builder.board, "y", "x").tasks[0].paired
    assert (back.difference, back.low, back.high) == (-forth.difference, -forth.high, -forth.low)
    assert back.p_value == forth.p_value


def test_an_entry_compared_with_itself_does_not_differ(builder: Any, right: Any) -> None:
    for seed, correct in enumerate((40, 60)):
        builder.add("a", {"one": right(correct, 100), "two": right(30, 50)}, seed=seed)
    result = compare(builder.board, "a", "a")
    assert result.delta_m is not None
    assert (result.delta_m.value, result.delta_m.low, result.delta_m.high) == (0, 0, 0)
    assert {task.p_holm for task in result.tasks} == {1.0}


def test_a_single_seed_speaks_of_its_weights_and_not_of_the_method(builder: Any, right: Any) -> None:
    builder.add("a", {"one": right(60, 200)})
    builder.add("b", {"one": right(70, 200)})
    assert any("not of the method" in sentence for sentence in compare(builder.board, "a", "b").verdict)


@pytest.mark.parametrize("field", ["card_version", "split", "images", "annotations"])
def test_different_protocols_are_refused_by_the_fields_name(builder: Any, right: Any, field: str) -> None:
    builder.add("a", {"one": right(60, 200)})
    builder.add("b", {"one": right(70, 200)}, protocol={field: "e" * 64})
    with pytest.raises(HarnessError, match=f"^one: a and b cannot be compared: protocol field '{field}' is "):
        compare(builder.board, "a", "b")


def test_tasks_that_only_one_entry_has_are_listed_and_not_compared(builder: Any, right: Any) -> None:
    builder.add("a", {"one": right(60, 200), "two": right(60, 200)})
    builder.add("b", {"one": right(70, 200), "three": right(60, 200)})
    result = compare(builder.board, "a", "b")
    assert ([task.card for task in result.tasks], result.only_a, result.only_b) == (["one"], ["two"], ["three"])
    assert result.delta_m is not None
    assert result.delta_m.tasks == ["one"]
    builder.add("c", {"four": right(1, 2)})
    with pytest.raises(HarnessError, match="no task in common"):
        compare(builder.board, "a", "c")


def test_single_task_models_together_are_a_baseline(builder: Any, right: Any) -> None:
    for seed in range(2):
        builder.add("joint", {"one": right(66, 100), "two": right(40, 100)}, seed=seed, cost=Cost(train_seconds=70.0))
        builder.add("only-one", {"one": right(60, 100)}, seed=seed, cost=Cost(train_seconds=40.0))
        builder.add("only-two", {"two": right(50, 100)}, seed=seed, cost=Cost(train_seconds=50.0))
    result = compare(builder.board, "joint", "only-one, only-two")
    assert result.delta_m is not None
    assert result.delta_m.value == pytest.approx((10 - 20) / 2)
    assert result.cost_b["train_seconds"] == 90
    with pytest.raises(HarnessError, match="both have one"):
        compare(builder.board, "joint", "only-one,joint")


def test_delta_m_against_a_baseline_of_zero_is_not_defined(builder: Any, right: Any) -> None:
    builder.add("a", {"one": right(60, 200)})
    builder.add("b", {"one": right(0, 200)})
    result = compare(builder.board, "a", "b")
    assert result.delta_m is None
    assert any("not defined" in sentence for sentence in result.verdict)


def test_the_interval_of_delta_m_widens_with_the_spread_over_seeds(builder: Any, right: Any) -> None:
    for seed, (steady, shaky) in enumerate(((60, 40), (60, 60), (60, 80))):
        builder.add("base", {"one": right(60, 100)}, seed=seed)
        builder.add("steady", {"one": right(steady, 100)}, seed=seed)
        builder.add("shaky", {"one": right(shaky, 100)}, seed=seed)
    steady, shaky = (compare(builder.board, name, "base").delta_m for name in ("steady", "shaky"))
    assert steady is not None
    assert shaky is not None
    assert steady.value == shaky.value == pytest.approx(0)
    # The three differences are -1/3, 0 and 1/3 of the baseline: standard error 0.192, t(2) 97.5% quantile 4.30.
    assert shaky.high - shaky.low > 100 * 2 * 0.192 * 4.30 * 0.8
    assert steady.high - steady.low < 1e-9


def test_the_interval_of_delta_m_covers_about_as_often_as_it_says(builder: Any) -> None:
    generator = np.random.default_rng(1)
    inside = 0
    for trial in range(60):
        truth = {"a": generator.random((2, 150)) < 0.6, "b": generator.random((2, 150)) < 0.5}
        for name, correct in truth.items():
            builder.add(f"{name}{trial}", {"one": correct[0], "two": correct[1]})
        change = compare(builder.board, f"a{trial}", f"b{trial}", draws=200).delta_m
        assert change is not None
        inside += change.low <= 20 <= change.high
        for name in truth:  # a board of one trial stays small
            for path in sorted((builder.board / "records" / f"{name}{trial}").rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
    assert inside >= 51  # binomial(60, 0.95): below 51 has probability 0.0008


def test_the_same_comparison_gives_the_same_document(builder: Any, right: Any) -> None:
    builder.add("a", {"one": right(60, 200)})
    builder.add("b", {"one": right(70, 200)})
    first = compare(builder.board, "a", "b")
    assert compare(builder.board, "a", "b") == first
    assert compare(builder.board, "a", "b", seed=1) != first
