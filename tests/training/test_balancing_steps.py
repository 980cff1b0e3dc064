"""Balanced steps of a whole network: parts, processes, penalties, what is shown, and going on."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from tests_support import batches
from torch import Tensor, nn

from harness.data.batches import Batch
from harness.models.network import PENALTY, MultiTaskNetwork
from harness.training.balancing import BALANCING
from harness.training.balancing.base import Balancer, Setting, build_balancer
from harness.training.balancing.gradients import TaskGradients
from harness.training.balancing.graph import last_shared
from harness.training.config import TrainingConfig
from harness.training.engine import Engine, leave
from harness.training.parts import differentiate, look_back

TASKS = {"c": 1.0, "d": 0.5, "s": 2.0, "v": 1.0}


def make(name: str, tasks: Mapping[str, float] = TASKS, **options: Any) -> Balancer:
    config = TrainingConfig.model_validate({"steps": 1, "balancing": {"name": name} | options}).balancing
    return build_balancer(config, Setting(tasks, seed=1, epoch=2))


def network() -> MultiTaskNetwork:
    from test_parts import network as without_noise

    return without_noise()


def gradients(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


def assert_close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], rtol: float = 1e-3) -> None:
    assert found.keys() == expected.keys()
    largest = max(float(value.abs().max()) for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=rtol, atol=2e-6 * largest, msg=name)


def step(net: MultiTaskNetwork, balancer: Balancer, parts: int = 1, **more: Any) -> dict[str, float]:
    net.zero_grad()
    return differentiate(net, Engine("32"), balancer, more.pop("found", batches()), parts, **more)


def test_parameters_of_one_task_get_its_plain_gradient_and_shared_ones_the_aggregate() -> None:
    net = network()
    step(net, make("equal"))
    plain = gradients(net)
    step(net, make("mgda"))
    found = gradients(net)
    heads = [name for name in plain if name.startswith(("heads.", "text."))]
    assert heads
    for name in heads:
        torch.testing.assert_close(found[name], plain[name], rtol=1e-4, atol=1e-7, msg=name)
    stem = next(name for name in plain if "stem" in name)
    assert not torch.allclose(found[stem], plain[stem], rtol=0.1)


def test_what_tasks_share_is_found_by_asking_not_by_names() -> None:
    """Classification reads no pyramid, so its levels are shared by three tasks, and no head is by any."""
    net, engine = network(), Engine("32")
    collected = TaskGradients(list(net.parameters()), list(TASKS))
    collected.add(net(batches()), keep=False)
    jacobian = collected.whole(engine)
    assert {members for members, _, _ in jacobian.blocks} >= {(0, 1, 2, 3), (1, 2, 3)}
    assert all(len(members) > 1 for members, _, _ in jacobian.blocks)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    assert not any(names[id(one)].startswith("heads.") for one in jacobian.shared)
    # The backbone's last norm is before the pooled feature, which classification alone reads.
    others = {names[id(one)] for one, _, _ in jacobian.own if not names[id(one)].startswith(("heads.", "text."))}
    assert {name for name in others if "placeholders" not in name} == {
        "shared.trunk.backbone.body.head.norm.weight",
        "shared.trunk.backbone.body.head.norm.bias",
    }
    for one, row, _ in jacobian.own:
        if names[id(one)].startswith("heads."):
            assert names[id(one)].split(".")[1] == jacobian.tasks[row]


def test_where_nothing_is_shared_no_rows_lie_where_the_parameters_are() -> None:
    """On GPUs, processes exchange them together with the gradients of each task's own parameters."""
    own = {name: nn.Parameter(torch.ones(3, device="meta", dtype=torch.float64)) for name in "xy"}
    collected = TaskGradients(list(own.values()), list(own))
    collected.add({name: one.sum() for name, one in own.items()}, keep=False)
    jacobian = collected.whole(Engine("32"))
    assert [row for _, row, _ in jacobian.own] == [0, 1]
    assert (jacobian.rows.shape, jacobian.rows.device.type, jacobian.rows.dtype) == ((2, 0), "meta", torch.float64)


def test_a_jacobians_rows_are_the_gradients_of_the_tasks_and_its_sum_is_that_of_all() -> None:
    net, engine = network().to(memory_format=torch.channels_last), Engine("32")
    step(net, make("equal"))
    expected = gradients(net)
    net.zero_grad()
    collected = TaskGradients(list(net.parameters()), list(TASKS))
    collected.add(net(batches()), keep=False)
    jacobian = collected.whole(engine)
    jacobian.install(jacobian.rows.sum(0), [1.0] * 4, 1.0)
    assert_close(gradients(net), expected)
    for parameter in net.parameters():
        if parameter.grad is not None and parameter.dim() == 4 and min(parameter.shape) > 1:
            assert parameter.grad.stride() == parameter.stride()  # channels last stays so


def test_cosines_are_those_of_the_gradients_in_what_both_tasks_reach() -> None:
    torch.manual_seed(0)
    both, one, lone = (nn.Parameter(torch.randn(3)) for _ in range(3))
    collected = TaskGradients([one, both, lone], ["x", "y", "z"])
    directions = {"x": torch.tensor([1.0, 2.0, 0.0]), "y": torch.tensor([2.0, 0.0, 1.0])}
    losses = {
        "x": (both * directions["x"]).sum() + (lone * 7).sum(),
        "y": (both * directions["y"]).sum() + (one * 5).sum(),
        "z": (one * torch.tensor([1.0, 0.0, 0.0])).sum(),
    }
    collected.add(losses, keep=False)
    found = collected.whole(Engine("32")).cosines()
    # x and y share `both` alone; that y also has a gradient in `one`, which x does not reach, is not between them.
    assert found == pytest.approx({"x|y": 2 / 5, "y|z": 1 / 3**0.5})


def test_a_task_by_itself_is_trained_plainly_to_the_bit_by_every_method_on_gradients() -> None:
    net = network()
    only: dict[str, Batch] = {"s": batches()["s"]}
    step(net, make("equal"), found=only)
    expected = gradients(net)
    for name in ("pcgrad", "cagrad", "mgda", "graddrop", "upgrad", "nash_mtl", "config"):
        step(net, make(name), found=only)
        found = gradients(net)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected), name


@pytest.mark.parametrize("name", sorted(name for name in BALANCING if make(name).by_task))
def test_a_task_that_shares_nothing_has_no_say_in_what_others_share(name: str) -> None:
    """Classification reads no pyramid; on a frozen backbone it shares nothing with tasks that share one."""
    net = network()
    net.shared.trunk.backbone.requires_grad_(False)
    net.placeholders.requires_grad_(False)
    for module in net.modules():  # with the backbone's statistics still, images of other tasks change nothing
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    step(net, make(name), found={task: batches()[task] for task in "dsv"})
    expected = gradients(net)
    step(net, make(name))
    found = {key: value for key, value in gradients(net).items() if key in expected}
    assert any(key.startswith("shared.trunk.neck") and bool(value.any()) for key, value in found.items())
    assert_close(found, expected)


@pytest.mark.parametrize("name", sorted(BALANCING))
def test_a_step_of_one_task_is_a_plain_one_but_for_the_methods_that_the_documentation_names(name: str) -> None:
    net, balancer = network(), make(name)
    only: dict[str, Batch] = {"s": batches()["s"]}
    step(net, make("equal"), found=only)
    expected = gradients(net)
    for _ in range(4):
        values = step(net, balancer, found=only)
        if balancer.looks_back:
            balancer.look_back({task: value / 2 for task, value in values.items()})
    if name in ("uncertainty", "imtl_l"):
        net.zero_grad()
        for s in balancer.parameters():
            s.data.fill_(0.5)
        step(net, balancer, found=only)
    found = gradients(net)
    alike = all(torch.allclose(found[key], expected[key], rtol=1e-4, atol=1e-7) for key in expected)
    assert alike == (name not in ("manual", "uncertainty", "imtl_l", "log", "dtp"))


@pytest.mark.parametrize("name", sorted(BALANCING))
def test_tasks_may_rest(name: str) -> None:
    net, balancer = network(), make(name)
    for tasks in ("cdsv", "sv", "c", "dsv"):
        points: dict[str, float] = {}
        values = step(net, balancer, found={task: batches()[task] for task in tasks}, points=points)
        assert list(values) == list(tasks)
        if balancer.looks_back:
            balancer.look_back(values)
        assert {key.partition("/")[2] for key in points if key.startswith("weight/")} <= set(tasks)
        assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients(net).values())


@pytest.mark.parametrize("name", ["cagrad", "pcgrad", "upgrad", "gradnorm", "imtl_g"])
def test_the_order_of_the_tasks_does_not_matter(name: str) -> None:
    found = []
    for tasks in ("cdsv", "vcsd"):
        net, balancer = network(), make(name, dict.fromkeys(tasks, 1.0))
        step(net, balancer, found={task: batches()[task] for task in tasks})
        found.append(gradients(net))
    assert_close(found[1], found[0], rtol=5e-3)


def test_gradnorm_watches_the_shared_weight_that_is_used_last() -> None:
    net, balancer = network(), make("gradnorm")
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    losses = net(batches())
    watched = balancer.watched(net, losses)
    assert watched is not None
    for loss in losses.values():
        (gradient,) = torch.autograd.grad(loss, watched, retain_graph=True)
        assert float(gradient.norm()) > 0
    earlier = [name for name, p in net.named_parameters() if "stem" in name and p.dim() > 1]
    assert names[id(watched)] not in earlier
    assert "stages.3" in names[id(watched)] or "sites" in names[id(watched)]
    without = {task: losses[task] for task in "dsv"}  # these three share the pyramid, too
    assert balancer.watched(net, without) is not watched


def test_the_last_shared_weight_is_the_last_in_time_that_every_loss_has_a_gradient_in() -> None:
    first, second, own, vector = (nn.Parameter(torch.randn(*size)) for size in ((2, 2), (2, 2), (2, 2), (2,)))
    shared = second @ first + vector  # a vector is no weight of a layer
    losses = [(shared @ own).sum(), shared.sum()]
    assert any(last_shared(losses, [second, own, first, vector]) is one for one in (first, second))
    shared = second @ (first @ first)
    losses = [(shared @ own).sum(), shared.sum()]
    assert last_shared(losses, [second, own, first]) is second
    assert last_shared([*losses, own.sum()], [second, own, first]) is None
    # DistributedDataParallel joins all losses in one node, which seems to reach everything from each of them.
    joined = Joined.apply(*losses)
    assert last_shared(list(joined), [second, own, first]) is second


class Joined(torch.autograd.Function):
    """As torch's own that DistributedDataParallel uses."""

    @staticmethod
    def forward(ctx: Any, *losses: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(loss.clone() for loss in losses)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return gradients


class Penalized(nn.Module):
    """A network with a penalty, as sharing architectures may have one."""

    def __init__(self, net: MultiTaskNetwork) -> None:
        super().__init__()
        self.net = net

    def forward(self, *arguments: Any) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self.net(*arguments)
        squares = torch.stack([p.square().sum() for p in self.net.parameters()])
        return losses | {PENALTY: 0.5 * squares.sum()}

    def counts(self, found: Mapping[str, Batch]) -> dict[str, int]:
        return self.net.counts(found)


@pytest.mark.parametrize("name", ["equal", "manual", "log", "uncertainty", "pcgrad", "gradnorm"])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_penalty_counts_once_and_is_not_balanced(name: str, parts: int) -> None:
    net = network()
    losses = step(net, make(name), parts)
    expected = gradients(net)
    model: Any = Penalized(net)
    values = step(model, make(name), parts)
    assert {task: values[task] for task in TASKS} == pytest.approx(losses)
    squares = sum(float(parameter.detach().square().sum()) for parameter in net.parameters())
    assert values[PENALTY] == pytest.approx(0.5 * squares, rel=1e-4)
    weights = dict(net.named_parameters())
    total = {key: expected.get(key, torch.zeros(())) + weights[key].detach() for key in weights}
    assert_close({key.removeprefix("net."): value for key, value in gradients(model).items()}, total)


@pytest.mark.parametrize("name", ["equal", "uncertainty", "gradnorm"])
def test_looking_at_cosines_leaves_no_trace(name: str) -> None:
    found = []
    for cosines in (False, True):
        torch.manual_seed(3)
        net, balancer, points = network().train(), make(name), {}
        for _ in range(2):
            step(net, balancer, points=points if cosines else None, cosines=cosines)
        found.append((gradients(net), balancer.state_dict(), torch.get_rng_state()))
    assert found[0][0].keys() == found[1][0].keys()
    assert all(torch.equal(found[1][0][key], value) for key, value in found[0][0].items())
    assert str(found[0][1]) == str(found[1][1])
    assert torch.equal(found[0][2], found[1][2])
    assert {key for key in points if key.startswith("cosine/")} == {
        f"cosine/{pair}" for pair in ("c|d", "c|s", "c|v", "d|s", "d|v", "s|v")
    }


@pytest.mark.parametrize("parts", [1, 2])
def test_indicators_are_those_of_the_whole_batches(parts: int) -> None:
    from test_parts import uneven

    net, balancer = network().eval(), make("dtp")
    seen: list[dict[str, float]] = []
    balancer.judge = seen.append  # type: ignore[assignment, method-assign]
    step(net, balancer, parts, found=uneven())
    found: dict[str, Any] = uneven()
    expected = {}
    for task in "csv":
        predicted = net.predict(task, found[task])
        best = predicted.argmax(1)
        if task == "c":
            expected[task] = (best == found[task].labels).float().mean().item()
        elif task == "s":
            labelled = found[task].masks != 255
            expected[task] = ((best == found[task].masks) & labelled).sum().item() / labelled.sum().item()
        else:
            expected[task] = found[task].targets[torch.arange(3), best].mean().item()
    assert {task: seen[0][task] for task in "csv"} == pytest.approx(expected, rel=1e-5)
    assert 0 < seen[0]["d"] < 1


def test_nobody_measures_what_nobody_wants_to_know() -> None:
    net = network()
    step(net, make("equal"))
    assert all(head.indicator is None for head in net.heads.values())


def test_looking_back_has_no_trace_in_statistics_gradients_or_random_streams() -> None:
    from tests_support import document

    from harness.models.config import ModelConfig

    raw = document()["model"]
    torch.manual_seed(0)
    from test_parts import SPECS

    net = MultiTaskNetwork(ModelConfig.model_validate(raw), SPECS).train()  # batch norm and dropout
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    stream = torch.get_rng_state()
    values = look_back(net, Engine("32"), batches(), 1)
    assert set(values) == set(TASKS)
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())
    assert torch.equal(torch.get_rng_state(), stream)
    assert not gradients(net)
    net(batches())
    assert any(not torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())


def test_gradients_that_are_not_finite_are_handed_on_and_not_aggregated() -> None:
    net = network()
    with torch.no_grad():
        next(iter(net.shared.parameters())).fill_(float("inf"))  # type: ignore[union-attr]
    step(net, make("aligned_mtl"))
    assert any(not bool(torch.isfinite(gradient).all()) for gradient in gradients(net).values())


@pytest.mark.parametrize("name", ["cagrad", "gradnorm"])
def test_a_scaler_of_half_precision_takes_back_what_gradients_were_scaled_by(name: str) -> None:
    net, plain = network(), make(name)
    step(net, plain)
    expected = gradients(net)
    net.zero_grad()
    engine, scaled = Engine("32"), make(name)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)  # as accelerate has it with 16 bits on a GPU
    engine._accelerator.scaler = scaler
    differentiate(net, engine, scaled, batches(), 1)
    assert_close(gradients(net), {key: 1024 * value for key, value in expected.items()})
    scaler.unscale_(torch.optim.SGD(net.parameters(), lr=0.1))
    assert_close(gradients(net), expected)
    assert str(scaled.state_dict()) == str(plain.state_dict())


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def joined(rank: int, port: int) -> Engine:
    """One of two processes of a run."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    torch.set_num_threads(1)
    return Engine("32")


def half(found: dict[str, Batch], rank: int) -> dict[str, Batch]:
    """What one of two processes gets of a step's batches."""
    slices = {}
    for task, batch in found.items():
        middle = len(batch.ids) // 2 or 1
        slices[task] = batch.rows(0, middle) if rank == 0 else batch.rows(middle, len(batch.ids))
    return slices


def _process(rank: int, port: int, names: list[str], folder: str) -> None:
    engine = joined(rank, port)
    from test_parts import uneven

    for name in names:
        net, balancer = network(), make(name)
        model, _ = engine.prepare(net, torch.optim.SGD(net.parameters(), lr=0.1))
        found = half(uneven(), rank)
        points: dict[str, float] = {}
        values = differentiate(model, engine, balancer, found, 1, points=points, cosines=True)
        torch.save((values, gradients(net), points, balancer.state_dict()), Path(folder) / f"{name}.{rank}")
        if balancer.looks_back:
            torch.save(look_back(model, engine, found, 1), Path(folder) / f"{name}.back.{rank}")
    leave()


def test_two_processes_have_the_gradient_of_one_with_every_method(tmp_path: Path) -> None:
    from test_parts import uneven

    names = sorted(BALANCING)
    mp.spawn(_process, (free_port(), names, str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    for name in names:
        net, balancer, points = network(), make(name), dict[str, float]()
        losses = step(net, balancer, found=uneven(), points=points, cosines=True)
        results = [torch.load(tmp_path / f"{name}.{rank}", weights_only=True) for rank in range(2)]
        for values, found, shown, state in results:
            assert values == pytest.approx(losses, rel=1e-4), name
            assert_close(found, gradients(net))
            assert shown == pytest.approx(points, rel=5e-2, abs=2e-3), name
            assert str(state) == str(results[0][3])
        first, second = results[0][1], results[1][1]
        assert all(torch.equal(first[key], second[key]) for key in first), name  # not one bit apart, or replicas drift
        if balancer.looks_back:
            again = look_back(net, Engine("32"), uneven(), 1)
            assert torch.load(tmp_path / f"{name}.back.0", weights_only=True) == pytest.approx(again, rel=1e-4)
