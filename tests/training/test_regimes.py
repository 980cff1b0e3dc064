"""Which tasks each step trains, under every regime; what stages leave behind."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tests_support import document

from harness.board.schema import Record
from harness.errors import HarnessError
from harness.progress import Reporter
from harness.registry import look_up
from harness.run_data import build_network, open_data, task_data
from harness.runs import run
from harness.submission import Submission
from harness.training import checkpoints, stepping
from harness.training.config import RegimeConfig
from harness.training.engine import Engine
from harness.training.loop import seed_everything, train
from harness.training.regimes import REGIMES
from harness.training.regimes.mt_dnn import mt_dnn
from harness.training.regimes.plan import Plan, Setting, apportion

ABC = ("a", "b", "c")
QUIET = Reporter(quiet=True)


def planned(name: str, batches: int = 12, tasks: tuple[str, ...] = ABC, seed: int = 0, **changes: Any) -> Plan:
    config = RegimeConfig.model_validate({"name": name} | changes)
    epoch = {task: 100.0 * 4**index for index, task in enumerate(tasks)}
    setting = Setting(config, tasks, batches, epoch, np.random.default_rng(seed))
    found: Plan = look_up(REGIMES, name, "regime")(setting)
    return found


def letters(plan: Plan) -> list[str]:
    return ["".join(plan.tasks(step)) for step in range(plan.steps)]


def test_joint_takes_every_task_in_every_step() -> None:
    assert letters(planned("joint", 3)) == ["abc"] * 3


@pytest.mark.parametrize("name", ["joint", "continual", "sequential", "curriculum"])
@pytest.mark.parametrize("tasks", [("a",), ("a", "b"), ABC, ("a", "b", "c", "d")])
@pytest.mark.parametrize("batches", [12, 13, 100, 1001])
def test_every_task_gets_as_many_batches_under_every_regime(name: str, tasks: tuple[str, ...], batches: int) -> None:
    plan = planned(name, batches, tasks)
    assert plan.batches() == dict.fromkeys(tasks, batches)
    assert all(plan.tasks(step) for step in range(plan.steps))


def test_mt_dnn_shuffles_batches_of_single_tasks_and_spends_the_same_in_all() -> None:
    plan = planned("mt_dnn", 70)
    assert plan.batches() == {"a": 10, "b": 40, "c": 160}  # 1 : 4 : 16 of 210
    assert plan.steps == 210
    assert {len(step) for step in letters(plan)} == {1}
    assert letters(plan) != letters(planned("mt_dnn", 70, seed=1))
    assert letters(plan)[:10] != ["a"] * 10


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({"sampling": "sqrt"}, [30, 60, 120]),  # 1 : 2 : 4
        ({"sampling": "uniform"}, [70, 70, 70]),
        ({"sampling": "temperature", "temperature": 1}, [10, 40, 160]),
        ({"sampling": "temperature", "temperature": 2}, [30, 60, 120]),
        ({"sampling": "temperature", "temperature": 1e9}, [70, 70, 70]),
    ],
)
def test_sampling_by_a_power_of_the_size(changes: dict[str, Any], counts: list[int]) -> None:
    assert list(planned("mt_dnn", 70, **changes).batches().values()) == counts


def test_whole_numbers_sum_to_the_total_and_the_largest_remainders_are_rounded_up() -> None:
    assert apportion(10, [1, 1, 1]) == [4, 3, 3]
    assert apportion(7, [0.5, 0.3, 0.2]) == [4, 2, 1]  # 3.5, 2.1, 1.4: the rest goes to the first
    assert apportion(1, [1, 2]) == [0, 1]


def test_continual_takes_one_task_after_another_in_the_stated_order() -> None:
    plan = planned("continual", 2, order=["b", "c", "a"])
    assert letters(plan) == ["b", "b", "c", "c", "a", "a"]
    assert plan.ends == (2, 4, 6)
    assert [plan.stage(number) for number in range(3)] == [["b"], ["c"], ["a"]]


def test_sequential_goes_on_with_earlier_tasks_beside_every_new_one() -> None:
    plan = planned("sequential", 6)
    # a: 2 in each of three stages; b: 3 in each of two; c: 6. Four tasks' totals never change.
    assert letters(plan) == ["a", "a", *["b", "ab", "ab"], *["c", "bc", "ac", "bc", "c", "abc"]]
    assert plan.ends == (2, 5, 11)
    assert [plan.stage(number) for number in range(3)] == [["a"], ["a", "b"], ["a", "b", "c"]]
    assert plan.batches(5) == {"a": 4, "b": 3, "c": 0}


def test_curriculum_takes_all_sets_of_a_size_before_larger_ones() -> None:
    plan = planned("curriculum", 12)
    assert letters(plan) == ["a"] * 4 + ["b"] * 4 + ["c"] * 4 + ["ab"] * 2 + ["ac"] * 2 + ["bc"] * 2 + ["abc"] * 4
    assert plan.ends == (12, 18, 22)


def test_curriculum_splits_the_budget_evenly_over_stages() -> None:
    plan = planned("curriculum", 4 * 3 * 5, ("a", "b", "c", "d"))
    found = Counter(letters(plan))
    for size in range(1, 5):
        each = 15 // comb(3, size - 1)
        assert {"".join(members): found["".join(members)] for members in combinations("abcd", size)} == dict.fromkeys(
            map("".join, combinations("abcd", size)), each
        )


def test_a_curriculum_of_too_few_batches_says_how_many_it_takes() -> None:
    with pytest.raises(HarnessError, match=r"training.steps: 11 batches .* take 12 at least"):
        planned("curriculum", 11, ("a", "b", "c", "d"))
    assert planned("curriculum", 12, ("a", "b", "c", "d")).steps


def test_too_few_batches_for_the_stages_of_sequential_are_refused() -> None:
    with pytest.raises(HarnessError, match=r"training.steps: 2 batches of each of 3 tasks .* take 3 at least"):
        planned("sequential", 2)
    assert planned("sequential", 3).stage(0) == ["a"]


def test_a_task_that_mt_dnn_would_never_train_is_refused() -> None:
    config = RegimeConfig.model_validate({"name": "mt_dnn"})
    epoch = {"large": 40000.0, "small": 50.0}

    def counts(batches: int, **changes: Any) -> dict[str, int]:
        changed = config.model_copy(update=changes)
        return mt_dnn(Setting(changed, ("large", "small"), batches, epoch, np.random.default_rng(0))).batches()

    with pytest.raises(HarnessError, match=r"none of 200 batches to small, .* \(401 are enough\), .* sqrt"):
        counts(100)
    assert counts(401) == {"large": 801, "small": 1}
    assert counts(100, sampling="sqrt") == {"large": 193, "small": 7}


@pytest.mark.parametrize("name", REGIMES)
def test_one_task_is_trained_alike_under_every_regime(name: str) -> None:
    assert letters(planned(name, 7, ("a",))) == ["a"] * 7


@pytest.mark.parametrize(
    ("regime", "message"),
    [
        ({"name": "joint", "order": ["a"]}, "order: the regime joint has none"),
        ({"name": "joint", "sampling": "sqrt"}, r"sampling: only regime \{name: mt_dnn\}"),
        ({"name": "mt_dnn", "temperature": 3}, "temperature: needs sampling: temperature"),
        ({"name": "continual", "order": ["shapes-vqa"]}, "must name each of the data sets"),
        ({"name": "jont"}, "did you mean 'joint'"),
    ],
)
def test_what_a_regime_does_not_have_is_refused(regime: dict[str, Any], message: str) -> None:
    raw = document()
    raw["training"]["regime"] = regime
    with pytest.raises(ValueError, match=message):
        Submission.model_validate(raw)


def test_keys_that_a_regime_does_not_have_are_not_in_the_fingerprint() -> None:
    def science(**regime: Any) -> Any:
        raw = document()
        raw["training"]["regime"] = regime
        return Submission.model_validate(raw).training.science()["regime"]

    assert science(name="joint") == {"name": "joint"}
    assert science(name="mt_dnn") == {"name": "mt_dnn", "sampling": "proportional"}
    names = [task["dataset"] for task in document()["tasks"]]
    assert science(name="continual", order=names[::-1]) == {"name": "continual", "order": names[::-1]}


def test_the_examples_of_the_reference_are_valid_and_name_every_regime() -> None:
    page = (Path(__file__).parents[2] / "docs" / "regimes.md").read_text()
    sections = [yaml.safe_load(block.split("```")[0]) for block in page.split("```yaml")[1:]]
    assert {one["training"]["regime"]["name"] for one in sections} == set(REGIMES) - {"joint"}
    for one in sections:
        Submission.model_validate(document() | one)


def submission(name: str, steps: int = 4, **changes: Any) -> Submission:
    raw = document(steps=steps)
    raw["tasks"] = raw["tasks"][:1] + raw["tasks"][2:]
    raw["training"] |= {"regime": {"name": name}} | changes
    return Submission.model_validate(raw)


@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize("stop", [2, 7])
def test_a_run_of_stages_is_scored_after_each_and_resumes_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    one = submission("sequential")
    whole = run(one, 0, tmp_path / "whole", tmp_path / "a", QUIET)
    assert [(stage.after, stage.trained) for stage in whole.stages] == [
        (1, ["shapes-classification"]),
        (3, ["shapes-classification", "shapes-segmentation"]),
        (7, ["shapes-classification", "shapes-segmentation", "shapes-vqa"]),
    ]
    assert [len(stage.values) for stage in whole.stages] == [3, 3, 0]
    assert whole.cost.steps == 7

    taken = 0
    honest = stepping.differentiate_with_adversary

    def interrupted(*given: Any, **named: Any) -> Any:
        nonlocal taken
        taken += 1
        if taken == stop:
            raise KeyboardInterrupt
        return honest(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(stepping, "differentiate_with_adversary", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(one, 0, tmp_path / "resumed", tmp_path / "b", QUIET)
    again = run(one, 0, tmp_path / "resumed", tmp_path / "b", QUIET)
    assert again.deterministic() == whole.deterministic()


@pytest.mark.usefixtures("tiny_suite")
def test_soft_sharing_goes_on_with_the_trunks_of_tasks_that_rest_since_before_the_stop(tmp_path: Path) -> None:
    one = submission("continual", 2)
    content = one.resolved()
    content["model"]["sharing"] = {"name": "soft", "coefficient": 1.0}
    one = Submission.model_validate(content)
    splits = open_data(one)
    data = {task: task_data(one, 0, splits, task, training=True) for task in splits.train}

    def trained(folder: Path) -> tuple[dict[str, Any], list[tuple[int, float]]]:
        seed_everything(0)
        network = build_network(one, splits)
        progress = train(one, network, Engine("32"), data, tmp_path / folder, QUIET)
        return network.state_dict(), progress.curves["loss/penalty"]

    def save_and_stop(where: Path, state: dict[str, Any]) -> None:
        original(where, state)
        if state["progress"]["step"] == 5:
            raise KeyboardInterrupt

    weights, penalties = trained(tmp_path / "whole")
    assert [step for step, value in penalties if value > 0] == [4, 6]
    original = checkpoints.save
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checkpoints, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "parts")
    resumed, again = trained(tmp_path / "parts")
    assert again == penalties
    assert all(torch.equal(value, resumed[name]) for name, value in weights.items())


@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize(
    ("name", "images"), [("joint", 8), ("mt_dnn", 16), ("continual", 16), ("sequential", 14), ("curriculum", 12)]
)
def test_tasks_share_images_in_the_steps_in_which_they_are_equally_far(tmp_path: Path, name: str, images: int) -> None:
    """Sequential takes batches 2 and 3 of the first task beside 1 and 3 of the second, curriculum 2 and 3 of both."""
    raw = document(steps=4)
    raw["tasks"] = [raw["tasks"][2], {"dataset": "shapes-detection", "images_of": raw["tasks"][2]["dataset"]}]
    raw["training"] |= {"regime": {"name": name}}
    one = Submission.model_validate(raw)
    splits = open_data(one)
    data = {task: task_data(one, 0, splits, task, training=True) for task in splits.train}
    progress = train(one, build_network(one, splits), Engine("32"), data, tmp_path, QUIET)
    assert progress.images == images


@pytest.mark.usefixtures("tiny_suite")
def test_stages_do_not_change_what_is_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scored = run(submission("continual", 2), 0, tmp_path / "runs", tmp_path / "a", QUIET)
    monkeypatch.setattr(Plan, "due", lambda self, step, known: False)
    unscored = run(submission("continual", 2), 0, tmp_path / "other", tmp_path / "b", QUIET)
    assert scored.weights == unscored.weights
    assert scored.stages[0].values.keys() == scored.tasks.keys()
    assert unscored.stages[0].values == {}


@pytest.mark.usefixtures("tiny_suite")
def test_backward_transfer_is_the_change_since_the_stage_that_brought_the_task_in(tmp_path: Path) -> None:
    record = run(submission("continual", 1), 0, tmp_path / "runs", tmp_path / "a", QUIET)
    document = record.model_dump(mode="json")
    values = {"shapes-classification": 0.9, "shapes-segmentation": 0.5, "shapes-vqa": 0.25}
    for card, value in values.items():
        document["tasks"][card]["metrics"][record.tasks[card].main] = value
    document["stages"][0]["values"] = {"shapes-classification": 1.0, "shapes-segmentation": 0.1, "shapes-vqa": 0.1}
    document["stages"][1]["values"] = {"shapes-classification": 0.8, "shapes-segmentation": 0.3, "shapes-vqa": 0.2}
    found = Record.model_validate(document).backward_transfer()
    # Not against the stage before, and nothing for the task that came last.
    assert found == pytest.approx({"shapes-classification": -0.1, "shapes-segmentation": 0.2})
    for stage in document["stages"]:
        stage["trained"] = list(values)
    assert Record.model_validate(document).backward_transfer() == {}


@pytest.mark.usefixtures("tiny_suite")
def test_single_task_steps_read_each_data_set_in_the_order_of_joint_training(tmp_path: Path) -> None:
    seen: dict[str, list[tuple[str, ...]]] = {}
    for name in ("joint", "continual"):
        one = submission(name, 2)
        taken: list[tuple[str, ...]] = []
        honest = stepping.differentiate_with_adversary

        def noted(
            config: Any, model: Any, engine: Any, balancer: Any, batches: Any, *rest: Any,
            into: Any = taken, f: Any = honest, **named: Any,
        ) -> Any:  # fmt: skip
            into.extend(batch.ids for key, batch in sorted(batches.items()))
            return f(config, model, engine, balancer, batches, *rest, **named)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(stepping, "differentiate_with_adversary", noted)
            run(one, 0, tmp_path / name, tmp_path / f"{name}-board", QUIET)
        seen[name] = taken
    assert sorted(seen["joint"]) == sorted(seen["continual"])


@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize("optimizer", [{"name": "sgd", "learning_rate": 0.01}, {"name": "adamw"}])
def test_a_task_that_rests_keeps_its_head_and_gets_its_momentum_later(
    tmp_path: Path, optimizer: dict[str, Any]
) -> None:
    record = run(submission("continual", 2, optimizer=optimizer), 0, tmp_path / "runs", tmp_path / "a", QUIET)
    assert record.cost.steps == 6
    assert {name: len(points) for name, points in record.curves.items() if name.startswith("loss/")} == {
        "loss/shapes-classification": 1, "loss/shapes-segmentation": 1, "loss/shapes-vqa": 1,
    }  # fmt: skip
