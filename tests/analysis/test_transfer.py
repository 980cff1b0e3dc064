"""What tasks do to each other: hand-computed transfer, Shapley values that add up, and what counts as a subset."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests_support import document

from harness.analysis import transfer
from harness.analysis.interaction import interaction
from harness.analysis.subsets import Subset, subset, subsets, write
from harness.board.evidence import Evidence
from harness.board.records import Protocol, Provenance, Record, TaskResult, hash_arrays, read_records, write_record
from harness.errors import HarnessError
from harness.evaluation import classification
from harness.evaluation.resampling import contrast, paired_difference
from harness.single_task import single_task
from harness.submission import Submission, load_submission

TASKS = ["shapes-classification", "shapes-detection", "shapes-vqa"]
CLASSIFICATION, DETECTION, VQA = TASKS


def submission(count: int = 4, **changes: Any) -> Submission:
    raw = document(count)
    raw["tasks"] = [task for task in raw["tasks"] if task["dataset"] in TASKS]
    return Submission.model_validate(raw | changes)


def result(right: int, images: int = 20) -> classification.ClassificationResult:
    labels = np.arange(images) % 3
    ids = [f"{number:03d}" for number in range(images)]
    return classification.evaluate(
        labels, np.where(np.arange(images) < right, labels, (labels + 1) % 3), ids, list("abc")
    )


def add(board: Path, one: Submission, right: dict[str, int], seed: int = 0, loss: float | None = None) -> None:
    """A record on which every task has the accuracy right / 20."""
    tasks, statistics = {}, {}
    for card, count in right.items():
        found = result(count)
        protocol = Protocol(
            card=card,
            card_version="1",
            split="val",
            images="0" * 64,
            annotations="0" * 64,
            metric="top1",
            metric_version=1,
        )
        tasks[card] = TaskResult(
            task="classification", protocol=protocol, main="top1", metrics=found.reduce(), images=20,
            statistics=hash_arrays(found.statistics),
        )  # fmt: skip
        statistics[card] = found.statistics
    curves: Any = {f"loss/{card}": [(10, 9.0), (95, loss), (100, loss)] for card in right if loss is not None}
    record = Record(
        name=one.name, fingerprint=one.fingerprint(), seed=seed, tasks=tasks, curves=curves,
        provenance=Provenance(version="1"),
    )  # fmt: skip
    write_record(board, record, statistics)


# By subset (first letters) the number of right answers of each of its tasks, of 20.
RIGHT = {
    "c": [8], "d": [5], "v": [10],
    "cd": [10, 4], "cv": [9, 14], "dv": [6, 11],
    "cdv": [13, 7, 12],
}  # fmt: skip
LETTERS = {name.removeprefix("shapes-")[0]: name for name in TASKS}


def filled(board: Path, leave_out: str = "", seeds: tuple[int, ...] = (0,), count: int = 4) -> None:
    for letters, right in RIGHT.items():
        names = [LETTERS[letter] for letter in letters]
        if letters != leave_out:
            for seed in seeds:
                more = dict(zip(names, (n + seed for n in right), strict=True))
                add(board, subset(submission(count), names), more, seed, loss=2.0 if len(letters) == 1 else 1.6)


def known(board: Path) -> dict[Subset, dict[int, Record]]:
    return transfer.records_of(subsets(submission()), read_records(board))


def value(board: Path, terms: transfer.Terms, target: str) -> float:
    found = transfer.estimated(terms, target, known(board), Evidence(board, 200, cached=False))
    assert found is not None
    assert found["low"] <= found["value"] <= found["high"]
    return float(found["value"])


def test_transfer_is_with_the_other_task_minus_alone(tmp_path: Path) -> None:
    filled(tmp_path)
    assert value(tmp_path, transfer.pair_terms(DETECTION, CLASSIFICATION), CLASSIFICATION) == pytest.approx(2 / 20)
    assert value(tmp_path, transfer.pair_terms(CLASSIFICATION, DETECTION), DETECTION) == pytest.approx(-1 / 20)


def test_leave_one_out_is_all_minus_all_but_it(tmp_path: Path) -> None:
    filled(tmp_path)
    terms = transfer.leave_one_out_terms(TASKS, VQA, CLASSIFICATION)
    assert value(tmp_path, terms, CLASSIFICATION) == pytest.approx((13 - 10) / 20)


def test_a_shapley_value_is_the_mean_over_all_orders_of_joining(tmp_path: Path) -> None:
    filled(tmp_path)
    # Classification alone has 8. Detection first, then VQA: +2, +3. VQA first, then detection: +1, +4.
    found = value(tmp_path, transfer.shapley_terms(TASKS, DETECTION, CLASSIFICATION), CLASSIFICATION)
    assert found == pytest.approx((2 + 4) / 2 / 20)
    found = value(tmp_path, transfer.shapley_terms(TASKS, VQA, CLASSIFICATION), CLASSIFICATION)
    assert found == pytest.approx((3 + 1) / 2 / 20)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_shapley_values_of_a_target_add_up_to_the_total_whatever_the_numbers(count: int) -> None:
    tasks = [f"t{number}" for number in range(count)]
    draw = np.random.default_rng(count)
    game = {frozenset(chosen): draw.random() for size in range(1, count + 1) for chosen in combinations(tasks, size)}
    target = tasks[-1]

    def total(terms: transfer.Terms) -> float:
        return sum(factor * game[names] for names, factor in terms.items())

    shares = [total(transfer.shapley_terms(tasks, source, target)) for source in tasks[:-1]]
    assert sum(shares) == pytest.approx(total(transfer.total_terms(tasks, target)))


def test_a_task_that_never_changes_anything_has_no_share() -> None:
    terms = transfer.shapley_terms(["a", "b", "c"], "b", "a")
    game = {frozenset("a"): 0.3, frozenset("ab"): 0.3, frozenset("ac"): 0.9, frozenset("abc"): 0.9}
    assert sum(factor * game[names] for names, factor in terms.items()) == pytest.approx(0)


def test_standleys_gain_is_of_the_last_tenth_of_the_losses(tmp_path: Path) -> None:
    filled(tmp_path)
    gains = transfer.loss_gains(TASKS, known(tmp_path))
    assert gains[VQA] is not None
    assert gains[VQA]["gain"] == pytest.approx(2.0 / 1.6 - 1)


def fell(points: int, start: int = 0) -> list[tuple[int, float | None]]:
    """A loss that falls to its number of points' reciprocal, beginning after a step."""
    return [(start + 10 * number, 1.0 / number) for number in range(1, points + 1)]


def curves(**losses: list[tuple[int, float | None]]) -> Record:
    """A record without anything else."""
    return Record.model_construct(curves={f"loss/{task}": points for task, points in losses.items()})


def test_the_final_loss_is_of_a_tasks_own_last_tenth_wherever_in_the_run_it_is() -> None:
    alone = transfer.final_loss(curves(a=fell(40)), "a")
    assert alone == pytest.approx(sum(1 / number for number in (37, 38, 39, 40)) / 4)
    # The same curve at the end of a run that trained another task first; a tenth of its steps would be eight points.
    together = curves(b=fell(40), a=fell(40, start=400))
    assert transfer.final_loss(together, "a") == alone
    gain = transfer.loss_gain("a", {0: curves(a=fell(40))}, {0: together})
    assert gain is not None
    assert gain["gain"] == 0


def test_a_task_that_was_trained_last_long_before_the_runs_end_has_no_gain() -> None:
    together = curves(a=fell(40), b=fell(40, start=400), penalty=[(800, None)])
    assert transfer.final_loss(together, "a") is None
    assert transfer.loss_gain("a", {0: curves(a=fell(40))}, {0: together}) is None
    # Random order leaves the last points to other tasks.
    assert transfer.final_loss(curves(a=fell(40), b=fell(37)), "b") is not None
    assert transfer.final_loss(curves(a=fell(40), b=fell(36)), "b") is None


def test_only_seeds_that_all_have_are_compared(tmp_path: Path) -> None:
    filled(tmp_path, seeds=(0, 1))
    add(tmp_path, subset(submission(), [CLASSIFICATION]), {CLASSIFICATION: 20}, seed=2)
    found = transfer.estimated(
        transfer.pair_terms(DETECTION, CLASSIFICATION),
        CLASSIFICATION,
        known(tmp_path),
        Evidence(tmp_path, 200, cached=False),
    )
    assert found is not None
    assert found["seeds"] == [0, 1]
    assert found["value"] == pytest.approx(2 / 20)


def test_what_is_missing_is_named_written_and_can_be_submitted(tmp_path: Path) -> None:
    board, folder = tmp_path / "board", tmp_path / "analysis"
    filled(board, leave_out="dv")
    made = interaction(submission(), [0], board, tmp_path / "my runs", folder, 200)
    assert made["transfer"][DETECTION][VQA] is None
    assert made["transfer"][DETECTION][CLASSIFICATION]["value"] == pytest.approx(0.1)
    assert made["shapley"][DETECTION][VQA] is None
    assert made["shapley"][DETECTION][CLASSIFICATION] is not None
    (file,) = (folder / "subsets").iterdir()
    assert file.name[:2] == "2-"
    assert load_submission(file).fingerprint() == subset(submission(), [DETECTION, VQA]).fingerprint()
    assert made["missing"]["runs"] == 1
    assert (
        made["missing"]["all"]
        == f"harness submit {folder}/subsets/*.yaml --leaderboard {board} --runs '{tmp_path}/my runs'"
    )
    filled(board)
    made = interaction(submission(), [0], board, tmp_path / "runs", folder, 200)
    assert made["missing"] == {"runs": 0, "transfer": None, "all": None}
    assert not list((folder / "subsets").iterdir())
    for target in TASKS:
        shares = [made["shapley"][source][target]["value"] for source in TASKS if source != target]
        assert sum(shares) == pytest.approx(made["total"][target]["value"])


def test_a_contrast_of_two_entries_is_their_paired_difference() -> None:
    a, b = [result(9), result(12)], [result(6), result(5)]
    expected = paired_difference(a, b, 300, 5).interval
    for found in (contrast([a, b], [1, -1], 300, 5), contrast([a, b, a], [1, -1, 0], 300, 5)):
        assert (found.estimate, found.method) == (pytest.approx(expected.estimate, abs=1e-12), expected.method)
        assert (found.low, found.high) == pytest.approx(
            (expected.low, expected.high), abs=1e-12
        )  # sums in another order
    with pytest.raises(HarnessError, match="different numbers of seeds"):
        contrast([a, b[:1]], [1, -1])


def test_a_subset_keeps_the_recipe_and_the_tokens() -> None:
    whole = submission()
    pair = subset(whole, [VQA, CLASSIFICATION])
    assert [task.dataset for task in pair.tasks] == [CLASSIFICATION, VQA]
    assert pair.model == whole.model
    assert pair.training == whole.training
    assert subset(whole, TASKS) is whole
    alone = subset(whole, [VQA])
    assert alone.model.placeholders == whole.model.placeholders
    assert alone.fingerprint() != single_task(whole, VQA).fingerprint()


def test_without_tokens_a_task_alone_is_the_single_task_baseline() -> None:
    whole = submission(0)
    assert subset(whole, [DETECTION]) == single_task(whole, DETECTION)


def test_with_tokens_per_task_every_task_keeps_as_many() -> None:
    raw = document(6)
    raw["tasks"] = [task for task in raw["tasks"] if task["dataset"] in TASKS]
    raw["model"]["placeholders"]["sharing"] = "per_task"
    whole = Submission.model_validate(raw)
    assert [subset(whole, TASKS[:size]).model.placeholders.count for size in (1, 2, 3)] == [2, 4, 6]


def test_names_of_tasks_that_are_left_out_go() -> None:
    raw = document(0)
    raw["model"]["sharing"] = {"name": "asymmetric", "sources": {VQA: [DETECTION, CLASSIFICATION], DETECTION: [VQA]}}
    raw["training"]["regime"] = {"name": "continual", "order": [task["dataset"] for task in raw["tasks"]][::-1]}
    pair = subset(Submission.model_validate(raw), [VQA, CLASSIFICATION])
    assert pair.model.sharing.sources == {VQA: (CLASSIFICATION,)}  # type: ignore[union-attr]
    assert pair.training.regime.order == (VQA, CLASSIFICATION)
    raw = document(0)
    raw["model"]["sharing"] = {"name": "hard", "taps": "hierarchical", "depths": {DETECTION: 8}}
    assert subset(Submission.model_validate(raw), [VQA, CLASSIFICATION]).model.sharing.taps == "parallel"  # type: ignore[union-attr]


def test_a_task_that_followed_anothers_images_has_its_own_when_that_one_is_left_out() -> None:
    raw = document(4)
    raw["tasks"][3] = {"dataset": VQA, "images_of": "shapes-segmentation", "questions": 3}
    whole = Submission.model_validate(raw)
    assert subset(whole, [VQA, "shapes-segmentation"]).tasks[1].images_of == "shapes-segmentation"
    assert subset(whole, [VQA, DETECTION]).tasks[1].images_of is None


def test_files_of_subsets_that_are_no_longer_missing_go(tmp_path: Path) -> None:
    whole = submission()
    write({frozenset({VQA}): subset(whole, [VQA])}, [3, 4], tmp_path)
    (file,) = write({frozenset({VQA, DETECTION}): subset(whole, [VQA, DETECTION])}, [3, 4], tmp_path)
    assert list(tmp_path.iterdir()) == [file]
    assert load_submission(file).seeds == (3, 4)


def test_a_copy_of_a_run_with_an_earlier_name_does_not_stand_for_it(tmp_path: Path) -> None:
    filled(tmp_path, seeds=(0, 1))
    real = subset(submission(), [CLASSIFICATION])
    copy = real.model_copy(update={"name": "aaa"})
    add(tmp_path, copy, {CLASSIFICATION: 20}, 0)
    (names,) = (names for names in known(tmp_path) if names == {CLASSIFICATION})
    assert {record.name for record in known(tmp_path)[names].values()} == {real.name}  # two seeds against one
