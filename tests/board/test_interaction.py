"""What tasks do to each other, on the board and in comparisons: hand-computed, and from runs of one recipe only."""

from __future__ import annotations

from typing import Any

import pytest

from harness.board.compare import compare
from harness.board.page import verify, write_board
from harness.board.related import Relatedness
from harness.board.schema import SubsetRun
from harness.board.tables import board_document, markdown

PRINTS = {"a": "a" * 12, "b": "b" * 12, "c": "c" * 12, "ab": "1" * 12, "ac": "2" * 12, "bc": "3" * 12}
# By task set the number of right answers of 100 of each of its tasks.
RIGHT = {"a": [40], "b": [50], "c": [60], "ab": [46, 45], "ac": [43, 70], "bc": [55, 61], "abc": [52, 47, 75]}


def subsets(tasks: str) -> list[SubsetRun]:
    return [SubsetRun(tasks=list(one), fingerprint=print_) for one, print_ in PRINTS.items() if set(one) < set(tasks)]


def fill(
    builder: Any, right: Any, seeds: tuple[int, ...] = (0,), leave_out: tuple[str, ...] = (), **fields: Any
) -> None:
    for tasks, counts in RIGHT.items():
        for seed in seeds if tasks not in leave_out else ():
            loss = (2.0 if len(tasks) == 1 else 1.6) + 0.1 * seed
            given = {
                "fingerprint": PRINTS.get(tasks, "0" * 12),
                "subsets": subsets(tasks),
                "curves": {f"loss/{task}": [(10, 9.0), (100, loss)] for task in tasks},
            }
            marks = {task: right(count + seed, 100) for task, count in zip(tasks, counts, strict=True)}
            builder.add(f"run-{tasks}", marks, seed, **(given | fields))


def entry(document: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in document["entries"] if one["name"] == name)


def matrix(document: dict[str, Any], measure: str, name: str = "run-abc") -> dict[str, dict[str, float]]:
    one = entry(document, name)
    every = [*one.get("interaction", {"matrices": []})["matrices"], *one.get("relations", [])]
    cells = next(found["cells"] for found in every if found["measure"] == measure)
    return {row: {column: cell["value"] for column, cell in line.items()} for row, line in cells.items()}


def test_transfer_is_what_the_row_does_to_the_column_beside_it_alone(builder: Any, right: Any) -> None:
    fill(builder, right)
    found = matrix(board_document(builder.board), "transfer")
    # Turned round (column to row) it would hold -0.05 where it holds 0.06.
    assert found["b"]["a"] == pytest.approx(0.46 - 0.40)
    assert found["a"]["b"] == pytest.approx(0.45 - 0.50)
    assert found["c"]["a"] == pytest.approx(0.43 - 0.40)
    assert set(found["a"]) == {"b", "c"}


def test_leaving_one_out_compares_all_with_all_but_it(builder: Any, right: Any) -> None:
    fill(builder, right)
    document = board_document(builder.board)
    found = matrix(document, "leave_one_out")
    assert found["c"]["a"] == pytest.approx(0.52 - 0.46)
    assert found["a"]["c"] == pytest.approx(0.75 - 0.61)
    interaction = entry(document, "run-abc")["interaction"]
    assert interaction["together"]["c"]["value"] == pytest.approx(0.75 - 0.60)
    assert interaction["missing"] == []


def test_an_entry_of_two_tasks_is_its_own_pair_and_leaves_nothing_out(builder: Any, right: Any) -> None:
    fill(builder, right)
    document = board_document(builder.board)
    assert matrix(document, "transfer", "run-ab")["b"]["a"] == pytest.approx(0.06)
    assert [one["measure"] for one in entry(document, "run-ab")["interaction"]["matrices"]] == ["transfer"]


def test_standleys_gain_has_a_students_interval_over_seeds(builder: Any, right: Any) -> None:
    fill(builder, right, seeds=(0, 1))
    gain = entry(board_document(builder.board), "run-abc")["interaction"]["loss_gain"]["a"]
    gains = [2.0 / 1.6 - 1, 2.1 / 1.7 - 1]
    assert gain["gain"] == pytest.approx(sum(gains) / 2)  # not the ratio of mean losses
    assert gain["high"] - gain["gain"] == pytest.approx(12.7062047 * abs(gains[0] - gains[1]) / 2, rel=1e-6)
    assert gain["seeds"] == [0, 1]


def test_missing_runs_are_named_with_the_seeds_that_lack(builder: Any, right: Any) -> None:
    fill(builder, right, leave_out=("bc", "a"))
    fill(builder, right, seeds=(1,), leave_out=("bc", "a", "ab"))
    document = board_document(builder.board)
    missing = entry(document, "run-abc")["interaction"]["missing"]
    assert missing == [
        {"tasks": ["a"], "fingerprint": PRINTS["a"], "seeds": [0, 1], "partly": False},
        {"tasks": ["a", "b"], "fingerprint": PRINTS["ab"], "seeds": [1], "partly": True},
        {"tasks": ["b", "c"], "fingerprint": PRINTS["bc"], "seeds": [0, 1], "partly": False},
    ]
    found = matrix(document, "transfer")
    assert "b" not in found  # for every target a run is missing
    assert found["a"]["b"] == pytest.approx(0.45 - 0.50)  # of the seed that both have
    text = "runs of a; a + b (seeds 1); b + c (harness analyze run-abc@000000000000 writes the submissions)"
    assert text in markdown(document)
    assert any(text in sentence for sentence in compare(builder.board, "run-abc", "run-b").verdict)


def test_a_run_that_was_scored_elsewhere_or_has_other_tasks_is_no_part_of_it(builder: Any, right: Any) -> None:
    fill(builder, right, leave_out=("a", "ab", "ac", "bc", "b", "c"))
    builder.add("elsewhere", {"a": right(40, 100)}, fingerprint=PRINTS["a"], protocol={"split": "test"})
    builder.add("others", {"c": right(40, 100)}, fingerprint=PRINTS["b"])
    assert "interaction" not in entry(board_document(builder.board), "run-abc")


@pytest.mark.parametrize(("count", "there"), [(0, True), (4, False)])
def test_without_named_subsets_baselines_stand_for_single_tasks_of_networks_without_tokens_only(
    builder: Any, right: Any, count: int, there: bool
) -> None:
    baselines = {task: PRINTS[task] for task in "ab"}
    model = {"model": {"placeholders": {"count": count}}}
    builder.add("joint", {"a": right(46, 100), "b": right(45, 100)}, baselines=baselines, submission=model)
    builder.add("alone-a", {"a": right(40, 100)}, fingerprint=PRINTS["a"])
    builder.add("alone-b", {"b": right(50, 100)}, fingerprint=PRINTS["b"])
    document = board_document(builder.board)
    # The baselines of an entry with tokens have none: the difference would be that of the tokens, too.
    assert ("interaction" in entry(document, "joint")) == there
    assert entry(document, "joint")["delta_m"] is not None
    if there:
        assert matrix(document, "transfer", "joint")["b"]["a"] == pytest.approx(0.06)


def test_comparing_a_pair_with_one_of_its_tasks_alone_tells_transfer_in_either_order(builder: Any, right: Any) -> None:
    fill(builder, right)
    forth = compare(builder.board, "run-ab", "run-a")
    back = compare(builder.board, "run-a", "run-ab")
    for found, side in ((forth, "a"), (back, "b")):
        (effect,) = found.effects
        assert (effect.card, effect.side, effect.sources, effect.kind) == ("a", side, ["b"], "transfer")
        assert effect.same_recipe is True
        assert effect.difference == pytest.approx(0.06)
        assert effect.low <= effect.difference <= effect.high
        assert effect.loss_gain == pytest.approx(2.0 / 1.6 - 1)
        assert any(sentence.startswith("a: transfer from b: +6.0 points with it") for sentence in found.verdict)
    assert back.tasks[0].paired.difference == pytest.approx(-0.06)
    (effect, *_) = compare(builder.board, "run-abc", "run-ab").effects
    assert (effect.kind, effect.sources) == ("leave_one_out", ["c"])
    (effect,) = compare(builder.board, "run-abc", "run-a").effects
    assert (effect.kind, effect.sources) == ("together", ["b", "c"])
    many = compare(builder.board, "run-abc", "run-a,run-b,run-c")
    assert [one.kind for one in many.effects] == ["together"] * 3
    assert compare(builder.board, "run-ab", "run-ac").effects == []


def test_a_comparison_says_when_more_than_the_tasks_differs(builder: Any, right: Any) -> None:
    fill(builder, right)
    builder.add("stranger", {"a": right(40, 100)}, fingerprint="f" * 12)
    found = compare(builder.board, "run-ab", "stranger")
    assert found.effects[0].same_recipe is False
    assert any("the recipes differ in more than the tasks" in sentence for sentence in found.verdict)


def test_entries_of_the_same_tasks_have_nothing_of_it(builder: Any, right: Any) -> None:
    builder.add("one", {"a": right(4, 10), "b": right(5, 10)})
    builder.add("two", {"a": right(6, 10), "b": right(5, 10)})
    found = compare(builder.board, "one", "two")
    assert found.effects == []
    assert not any("Missing" in sentence for sentence in found.verdict)


def related(cka: float) -> Relatedness:
    pair = {"a": "b", "b": "a", "cka": cka, "cka_debiased": -0.1}
    outputs = {**pair, "information": {"nats": 0.5, "null_mean": 0.0, "null_high": 0.2, "p_value": 0.01}}
    return Relatedness.model_validate(
        {"images": 20, "features": [{**pair, "pearson": None, "identical": False}], "outputs": [outputs]}
    )


def test_matrices_of_a_run_are_means_over_seeds_and_over_the_points_of_curves(builder: Any, right: Any) -> None:
    for seed, cka in enumerate((0.2, 0.4)):
        curves = {
            "cosine/a|b": [(0, 0.5), (5, None), (10, -0.1 + 0.2 * seed)],
            "cosine/a|stranger": [(0, 0.9)],
            "affinity/a|b": [(0, 0.02), (10, 0.04)],
            "affinity/a|a": [(0, 0.3)],
        }
        marks = {"a": right(4, 10), "b": right(5, 10)}
        builder.add("run-abc", marks, seed, curves=curves, relatedness=related(cka))
    document = board_document(builder.board)
    assert matrix(document, "gradient_cosine") == {
        "a": {"b": pytest.approx(0.25)},
        "b": {"a": pytest.approx(0.25)},  # symmetric; the point that was not finite is left out
    }
    assert matrix(document, "affinity") == {"a": {"a": pytest.approx(0.3), "b": pytest.approx(0.03)}}  # it is not
    assert matrix(document, "features_cka")["b"]["a"] == pytest.approx(0.3)
    assert matrix(document, "mutual_information")["a"]["b"] == pytest.approx(0.5)
    measures = [one["measure"] for one in entry(document, "run-abc")["relations"]]
    assert measures == ["gradient_cosine", "affinity", "features_cka", "outputs_cka", "mutual_information"]
    cells = {one["measure"]: one["cells"]["a"].get("b") for one in entry(document, "run-abc")["relations"]}
    assert cells["gradient_cosine"]["high"] - 0.25 == pytest.approx(12.7062047 * 0.05, rel=1e-6)
    cka = cells["features_cka"]
    assert (cka["low"], cka["high"]) == (0, 1)  # Student's interval would go on where no CKA is
    assert cka["debiased"] == pytest.approx(-0.1)


def test_what_only_some_seeds_have_is_not_shown(builder: Any, right: Any) -> None:
    marks = {"a": right(4, 10), "b": right(5, 10)}
    builder.add("run-abc", marks, 0, relatedness=related(0.2))
    builder.add("run-abc", marks, 1)
    assert "relations" not in entry(board_document(builder.board), "run-abc")


def test_a_board_with_matrices_is_what_its_records_give_in_all_its_forms(builder: Any, right: Any) -> None:
    fill(builder, right)
    builder.add("other", {"a": right(4, 10), "b": right(5, 10)}, relatedness=related(0.25))
    write_board(builder.board)
    assert verify(builder.board) == []
    text = (builder.board / "README.md").read_text()
    assert "### run-abc: Transfer: the column learned with the row, minus alone" in text
    assert "| b | +6.0 [" in text
    assert "0.25 debiased \N{MINUS SIGN}0.10" in text
    assert "by chance up to 0.20" in text
    page = (builder.board / "index.html").read_text()
    assert "Leave one out: the column learned with all, minus all but the row" in page


def test_a_board_without_any_of_it_says_nothing_of_it(builder: Any, right: Any) -> None:
    builder.add("plain", {"a": right(4, 10), "b": right(5, 10)})
    document = board_document(builder.board)
    assert not {"relations", "interaction"} & entry(document, "plain").keys()
    assert "Between tasks" not in markdown(document)


def test_a_copy_of_a_run_with_an_earlier_name_does_not_stand_for_it(builder: Any, right: Any) -> None:
    fill(builder, right, seeds=(0, 1), leave_out=("a",))
    builder.add("run-a", {"a": right(40, 100)}, fingerprint=PRINTS["a"], trust="rescored")
    for seed in (0, 1):
        builder.add("aaa", {"a": right(1, 100)}, seed, fingerprint=PRINTS["a"])
    document = board_document(builder.board)
    assert matrix(document, "transfer")["b"]["a"] == pytest.approx(0.46 - 0.40)
    (missing,) = entry(document, "run-abc")["interaction"]["missing"]
    assert (missing["tasks"], missing["seeds"]) == (["a"], [1])
    assert "runs of a (seeds 1)" in " ".join(compare(builder.board, "run-abc", "run-b").verdict)
