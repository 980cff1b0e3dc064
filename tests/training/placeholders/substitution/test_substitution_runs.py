"""Runs with substitution: resumed, in parts, in several processes, with every method and regime."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from tests_runs import in_this_process, in_two_processes
from tests_support import document

from harness.data import shapes
from harness.errors import HarnessError
from harness.models.substitution import Choice
from harness.progress import Reporter
from harness.run_data import build_network, open_data, task_data
from harness.runs import run
from harness.submission import Submission
from harness.training import checkpoints
from harness.training.balancing import BALANCING
from harness.training.balancing.base import Setting, build_balancer
from harness.training.balancing.graph import last_shared
from harness.training.engine import Engine
from harness.training.loop import seed_everything, train
from harness.training.placeholders.substitution import STRATEGIES
from harness.training.placeholders.substitution.gain_model import GainModel
from harness.training.regimes import REGIMES
from harness.training.state import Progress

QUIET = Reporter(quiet=True)
SECTIONS: dict[str, dict[str, Any]] = {
    "random": {"strategy": "random"},
    "cross_validation": {"strategy": "cross_validation", "folds": 3},
    "progressive": {"strategy": "progressive"},
    "adaptive": {"strategy": "adaptive", "every": 2, "held_out": 0.2},
}


def wanted(strategy: str | None, steps: int = 6, count: int = 4, **training: Any) -> Submission:
    raw = document(count, steps)
    raw["training"] |= {"placeholders": {"substitution": SECTIONS[strategy] if strategy else None}} | training
    return Submission.model_validate(raw)


def trained(folder: Path, submission: Submission) -> tuple[dict[str, torch.Tensor], Progress]:
    splits = open_data(submission)
    seed_everything(0)
    network = build_network(submission, splits)
    data = {name: task_data(submission, 0, splits, name, training=True) for name in splits.train}
    progress = train(submission, network, Engine("32"), data, folder, QUIET)
    return network.state_dict(), progress


def test_every_strategy_is_tried_here() -> None:
    assert set(SECTIONS) == set(STRATEGIES)


@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize("strategy", SECTIONS)
def test_a_run_that_is_stopped_and_resumed_ends_in_the_same_weights_and_curves(tmp_path: Path, strategy: str) -> None:
    submission = wanted(strategy)
    whole, expected = trained(tmp_path / "whole", submission)

    class Stop(Exception):
        pass

    original = checkpoints.save

    def save_and_stop(where: Path, state: dict[str, Any]) -> None:
        original(where, state)
        if state["progress"]["step"] in (3, 5):
            raise Stop

    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoints, "save", save_and_stop)
            with pytest.raises(Stop):
                trained(tmp_path / "parts", submission)
    parts, progress = trained(tmp_path / "parts", submission)
    assert whole.keys() == parts.keys()
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    assert progress.curves == expected.curves
    shares = {name: points for name, points in expected.curves.items() if "substitution/shapes" in name}
    assert shares
    for target in {name.partition("|")[0] for name in shares}:
        totals: dict[int, float] = {}
        for name, points in shares.items():
            for step, value in points if name.startswith(f"{target}|") else ():
                totals[step] = totals.get(step, 0.0) + value
        assert all(total == pytest.approx(1) for total in totals.values())


@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize("count", [0, 4])
def test_weights_and_data_start_as_without_it_and_training_changes_all_of_it(tmp_path: Path, count: int) -> None:
    seed_everything(0)
    splits = open_data(wanted(None))
    plain = build_network(wanted(None, count=count), splits)
    stream = torch.rand(1)
    seed_everything(0)
    network = build_network(wanted("random", count=count), splits)
    assert torch.equal(torch.rand(1), stream)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in plain.state_dict().items())
    before = {name: p.clone() for name, p in network.named_parameters() if name.startswith("substitution.")}
    after, _ = trained(tmp_path, wanted("random", steps=8, count=count))
    assert [name for name, value in before.items() if torch.equal(value, after[name])] == []


@pytest.mark.usefixtures("tiny_suite")
def test_looks_at_gains_change_nothing_but_who_is_drawn(tmp_path: Path) -> None:
    ends = []
    for every in (2, 100):
        raw = document(steps=6)
        section = SECTIONS["adaptive"] | {"every": every, "epsilon": 1.0}  # any source, whatever is expected
        raw["training"] |= {"placeholders": {"substitution": section}}
        ends.append(trained(tmp_path / str(every), Submission.model_validate(raw)))
    assert all(torch.equal(value, ends[1][0][name]) for name, value in ends[0][0].items())
    assert any(name.startswith("substitution/gain/") for name in ends[0][1].curves)
    assert not any(name.startswith("substitution/gain/") for name in ends[1][1].curves)


@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize(
    "changes", [{"kind": "random"}, {"frozen": True}, {"write": False}, {"adapter": True}], ids=str
)
def test_without_tokens_that_tasks_learn_gradients_are_compared_in_the_last_shared_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    seen: list[float] = []
    monkeypatch.setattr(GainModel, "learn", lambda self, inputs, gain: seen.append(inputs[0]))
    raw = document(steps=4)
    raw["model"]["placeholders"] |= changes
    raw["training"] |= {"placeholders": {"substitution": SECTIONS["adaptive"]}}
    trained(tmp_path, Submission.model_validate(raw))
    assert seen
    assert all(seen)  # a cosine of exactly 0 is one that was not found


@pytest.mark.usefixtures("tiny_suite")
def test_a_record_has_the_curves_and_its_predictions_are_those_of_the_plain_network(tmp_path: Path) -> None:
    record = run(wanted("random", 3), 0, tmp_path / "runs", tmp_path / "board", QUIET)
    assert record.cost.parameters_by_part["substitution"] > 0
    assert {step for step, _ in record.curves["substitution/ratio"]} == {2, 3}
    assert record.curves["substitution/ratio"][0][1] == 0.15
    assert record.affinity() == {}


@pytest.mark.usefixtures("tiny_suite")
def test_a_copys_gradient_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    submission = wanted("cross_validation", 3, optimizer={"learning_rate": 1e30, "name": "sgd"}, schedule={"warmup": 0})
    with pytest.raises(HarnessError, match="training stopped"):
        trained(tmp_path, submission)


@pytest.mark.usefixtures("tiny_suite")
def test_what_stands_before_some_heads_in_a_step_is_not_taken_for_the_last_shared_weight() -> None:
    submission = wanted("random", balancing={"name": "gradnorm"})
    splits = open_data(submission)
    seed_everything(0)
    network = build_network(submission, splits)
    names = ("shapes-detection", "shapes-vqa")  # of a stage without their common source
    data = {name: task_data(submission, 0, splits, name, training=True) for name in names}
    given = {name: one.batch([(0, 0), (0, 1)]) for name, one in data.items()}
    assert network.substitution is not None
    network.substitution.choice = Choice(0, 0, 0.5, dict.fromkeys(names, ("shapes-segmentation",)))
    losses = network(given)
    left_out = list(network.substitution.parameters())
    naive = last_shared(list(losses.values()), list(network.parameters()))
    assert any(naive is one for one in left_out)
    balancer = build_balancer(submission.training.balancing, Setting(dict.fromkeys(data, 1.0)))
    found = balancer.watched(network, losses)
    assert not any(found is one for one in left_out)
    assert any(found is one for one in network.shared.parameters())  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize("balancing", sorted(BALANCING))
def test_it_trains_with_every_method_and_regime(tmp_path: Path, balancing: str) -> None:
    place = sorted(BALANCING).index(balancing)
    for strategy in [list(SECTIONS)[(place + more) % len(SECTIONS)] for more in range(2)]:
        regime = "joint" if strategy == "adaptive" else list(REGIMES)[(place // 2) % len(REGIMES)]
        raw = document(steps={"curriculum": 6, "sequential": 3, "joint": 3}.get(regime, 1))
        raw["tasks"] = [one for one in raw["tasks"] if one["dataset"] != "shapes-detection"]
        raw["training"] |= {"balancing": {"name": balancing}, "regime": {"name": regime}}
        raw["training"]["placeholders"] = {"substitution": SECTIONS[strategy]}
        submission = Submission.model_validate(raw)
        _, progress = trained(tmp_path / strategy, submission)
        assert progress.curves["substitution/ratio"], (strategy, regime)


def exact(strategy: str, **training: Any) -> dict[str, Any]:
    """No batch norm and no dropout, which make a batch more than its images, and plain gradient steps."""
    raw = document(steps=4)
    raw["model"]["backbone"] = {"name": "test_convnext"}
    raw["model"]["heads"]["segmentation"] = {"name": "upernet", "channels": 16, "dropout": 0}
    raw["tasks"][1] |= {"batch_size": 3, "crop": 0.05}  # an odd batch, and crops without a box in them
    raw["training"] |= {"optimizer": {"name": "sgd", "learning_rate": 0.02}, "gradient_clip": None} | training
    raw["training"]["placeholders"] = {"substitution": SECTIONS[strategy]}
    raw["evaluation"] = {"batch_size": 4}
    return raw


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    shapes.make(folder / shapes.default_root().name, {"train": 24, "val": 2, "test": 4})
    return folder


@pytest.mark.slow
def test_two_processes_and_two_parts_end_in_the_weights_of_one(tmp_path: Path, suite: Path) -> None:
    one = in_this_process(tmp_path / "one", suite, {name: exact(name) for name in SECTIONS})
    two = in_two_processes(tmp_path / "two", suite, {name: exact(name) for name in SECTIONS})
    parts = in_this_process(tmp_path / "parts", suite, {name: exact(name, accumulation=2) for name in SECTIONS})
    for (strategy, whole), other in product(one.items(), (two, parts)):
        weights, curves = other[strategy].weights, other[strategy].record["curves"]
        assert weights.keys() == whole.weights.keys()
        for name, value in whole.weights.items():
            torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=4e-6, msg=f"{strategy}: {name}")
        for name, points in whole.record["curves"].items():
            if name.startswith(("loss", "substitution")):
                assert dict(curves[name]) == pytest.approx(dict(points), rel=1e-3, abs=1e-6), (strategy, name)
