"""Steps in which a task has no label: it rests for the balancer, however the step is split."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from test_balancing_steps import assert_close, free_port, gradients, half, joined, make, network, step
from tests_support import batches, document

from harness.data.batches import Batch
from harness.models.heads.segmentation import SegmentationHead
from harness.models.network import MultiTaskNetwork
from harness.run_data import build_network, open_data, task_data
from harness.submission import Submission
from harness.training.balancing import BALANCING
from harness.training.balancing.base import Balancer
from harness.training.engine import Engine, leave
from harness.training.gate_curves import GateCurves
from harness.training.meters import Stopwatch
from harness.training.parts import differentiate
from harness.training.planning import plan
from harness.training.stepping import Stepper


def unlabelled(images: Sequence[int] = (0, 1)) -> dict[str, Batch]:
    """Some images' label maps, of two, are all ignored."""
    found: dict[str, Any] = batches()
    masks = found["s"].masks.clone()
    masks[list(images)] = 255
    return found | {"s": replace(found["s"], masks=masks)}


def started(name: str) -> tuple[MultiTaskNetwork, Balancer]:
    """A method that has seen a whole step, so that it has something to remember."""
    net, balancer = network(), make(name)
    values = step(net, balancer)
    if balancer.looks_back:
        balancer.look_back({task: value * (0.7 if task == "s" else 0.9) for task, value in values.items()})
    with torch.no_grad():
        for number, parameter in enumerate(balancer.parameters()):
            parameter.fill_(0.2 * number - 0.3)
    balancer.zero_grad()
    return net, balancer


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("name", sorted(BALANCING))
def test_a_step_without_labels_of_a_task_is_one_without_the_task(name: str, parts: int) -> None:
    results = []
    for found in (unlabelled(), {task: batch for task, batch in batches().items() if task != "s"}):
        net, balancer = started(name)
        points: dict[str, float] = {}
        step(net, balancer, parts, found=found, points=points, cosines=True)
        own = {key: value.grad for key, value in balancer.named_parameters() if value.grad is not None}
        results.append((gradients(net), points, deepcopy(balancer.state_dict()), own))
    (found, points, state, own), (expected, other, alone, learned) = results
    assert_close({key: found[key] for key in expected}, expected)
    assert not any(bool(value.any()) for key, value in found.items() if key not in expected)
    assert own.keys() == learned.keys()  # of a task that rests, the network's optimizer moves nothing
    torch.testing.assert_close(own, learned, rtol=1e-4, atol=1e-6)
    if not balancer.constant:
        assert points == pytest.approx(other, rel=1e-3, abs=1e-5)
    torch.testing.assert_close(_numbers(state), _numbers(alone), rtol=1e-4, atol=1e-6)


def _numbers(state: Any) -> Any:
    """A state without the options of Adam that are not set."""
    if isinstance(state, dict):
        return {str(key): _numbers(value) for key, value in state.items() if value is not None}
    return [_numbers(one) for one in state] if isinstance(state, (list, tuple)) else state


@pytest.mark.parametrize("name", sorted(BALANCING))
def test_a_step_without_any_label_moves_nothing(name: str) -> None:
    net, balancer = started(name)
    before = {key: value for key, value in deepcopy(balancer.state_dict()).items() if key != "_extra_state"}
    points: dict[str, float] = {}
    for parts in (1, 2):
        step(net, balancer, parts, found={"s": unlabelled()["s"]}, points=points)
        balancer.look_back({})
    assert not any(bool(value.any()) for value in gradients(net).values())
    assert all(value.grad is None for value in balancer.parameters())
    assert points == {}
    assert all(torch.equal(balancer.state_dict()[key], value) for key, value in before.items())


@pytest.mark.parametrize("name", ["rlw", "gradnorm", "log", "mgda"])
def test_labels_in_a_later_part_count(name: str) -> None:
    found = []
    for parts in (1, 2):
        net, balancer = started(name)
        step(net, balancer, parts, found=unlabelled([0]))
        found.append(gradients(net))
    assert any(bool(value.any()) for key, value in found[0].items() if key.startswith("heads.s."))
    assert_close(found[1], found[0])


METHODS = ("rlw", "uncertainty", "dtp", "gradnorm", "famo", "upgrad")


def _process(rank: int, port: int, folder: str) -> None:
    engine = joined(rank, port)
    for name in METHODS:
        for case, images in (("none", (0, 1)), ("one", (0,))):
            net, balancer = started(name)
            net.zero_grad()
            model, _ = engine.prepare(net, torch.optim.SGD(net.parameters(), lr=0.1))
            own = half(unlabelled(images), rank)
            for _ in range(2):  # the second one would tell of weights that the first one did not reach
                net.zero_grad()
                differentiate(model, engine, balancer, own, 1)
            torch.save((gradients(net), str(balancer.state_dict())), Path(folder) / f"{name}.{case}.{rank}")
    leave()


def test_processes_agree_on_who_rests(tmp_path: Path) -> None:
    mp.spawn(_process, (free_port(), str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    for name in METHODS:
        for case, images in (("none", (0, 1)), ("one", (0,))):
            found, again = (torch.load(tmp_path / f"{name}.{case}.{rank}", weights_only=True) for rank in range(2))
            net, balancer = started(name)
            # A task that has labels in one process rests in none.
            here = {task: batch for task, batch in unlabelled(images).items() if task != "s" or case == "one"}
            for _ in range(2):
                step(net, balancer, found=here)
            expected = gradients(net)
            assert_close({key: found[0][key] for key in expected}, expected)
            assert found[1] == again[1], (name, case)
            assert all(torch.equal(again[0][key], value) for key, value in found[0].items()), (name, case)


@pytest.mark.usefixtures("tiny_suite")
def test_nobody_looks_back_at_a_task_that_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = document()
    raw["tasks"] = [raw["tasks"][0], raw["tasks"][2]]
    raw["training"] |= {"balancing": {"name": "famo"}}
    submission = Submission.model_validate(raw)
    splits, engine = open_data(submission), Engine("32")
    data = {task: task_data(submission, 0, splits, task, training=True) for task in splits.train}
    net = build_network(submission, splits).train()
    honest = SegmentationHead.loss
    monkeypatch.setattr(SegmentationHead, "loss", lambda *given: 0 * honest(*given))
    stepper = Stepper(submission, net, engine, data, plan(submission, data))
    stepper.open({}, 0)
    watch, gates = Stopwatch(engine.device), GateCurves(net, engine, False)
    assert [stepper.take(number, watch, gates).losses["shapes-segmentation"] for number in range(2)] == [0, 0]
    # Beside a loss that stays, one that fell would have lost weight.
    assert stepper.balancer.numbers(list(data)).tolist() == [0.0, 0.0]
