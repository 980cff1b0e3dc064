"""Mixtures of experts: MoE, MMoE and its stack, CGC and PLE."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tests_support import batches, document
from torch import Tensor, nn

from harness.models.config import ModelConfig
from harness.models.features import pooled
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.models.sharing.experts import Experts, Gate
from harness.models.sharing.mmoe import Mmoe, Moe
from harness.models.sharing.ple import Extraction, Ple

SPECS = {
    "c": TaskSpec("classification", 5),
    "d": TaskSpec("detection", 3),
    "s": TaskSpec("segmentation", 4),
    "v": TaskSpec("vqa", 7, words=10),
}
METHODS: dict[str, dict[str, Any]] = {
    "moe": {"experts": 2},
    "mmoe": {"experts": 2},
    "ml_mmoe": {"experts": 2},
    "cgc": {"own": 1, "shared": 2},
    "ple": {"own": 1, "shared": 2},
}
MIXTURES: dict[str, Callable[[list[str]], nn.Module]] = {
    "moe": lambda tasks: Moe(4, 3, 4, 3),
    "mmoe": lambda tasks: Mmoe(tasks, 4, 3, 4, 3),
    "ml_mmoe": lambda tasks: Mmoe(tasks, 4, 3, 4, 3, levels=2),
    "cgc": lambda tasks: Ple(tasks, 4, 1, 2, 4, 3, levels=1),
    "ple": lambda tasks: Ple(tasks, 4, 1, 2, 4, 3, levels=3),
}


def build(method: str, count: int = 0, **backbone: Any) -> MultiTaskNetwork:
    model = document(count)["model"]
    model["backbone"] |= backbone
    model["sharing"] = {"name": method, "width": 8, **METHODS[method]}
    torch.manual_seed(0)
    return MultiTaskNetwork(ModelConfig.model_validate(model), SPECS)


def adding(*values: float) -> Experts:
    """Experts on one channel: expert e returns X + values[e]."""
    experts = Experts(1, len(values), 4, 3)
    nn.init.zeros_(experts.outward.weight)
    with torch.no_grad():
        experts.outward.bias.copy_(torch.tensor(values))  # type: ignore[union-attr]
    return experts


def weighing(*weights: float) -> Gate:
    """A gate that gives `weights` where the pooled map is 1."""
    gate = Gate(1, len(weights))
    with torch.no_grad():
        gate.linear.weight.copy_(torch.tensor(weights).log()[:, None])
    return gate


def test_mmoe_weighs_the_same_experts_by_each_tasks_own_gate() -> None:
    mixture = Mmoe(["a", "b"], 1, 2, 4, 3)
    mixture.experts[0] = adding(4.0, 8.0)
    mixture.gates[0] = nn.ModuleDict({"a": weighing(0.75, 0.25), "b": weighing(0.5, 0.5)})
    x = torch.tensor([[[[0.0, 2.0], [1.0, 1.0]]]])  # its mean is 1
    found = mixture(x, None, ["a", "b"])
    torch.testing.assert_close(found["a"], x + 5)  # 0.75 * 4 + 0.25 * 8
    torch.testing.assert_close(found["b"], x + 6)


def test_moe_gives_all_tasks_the_same() -> None:
    mixture = Moe(1, 2, 4, 3)
    mixture.experts, mixture.gate = adding(4.0, 8.0), weighing(0.75, 0.25)
    found = mixture(torch.ones(1, 1, 2, 2), None, ["a", "b"])
    assert torch.equal(found["a"], found["b"])
    torch.testing.assert_close(found["a"], torch.full((1, 1, 2, 2), 6.0))


def test_a_second_level_of_mmoe_reads_what_the_first_made() -> None:
    mixture = Mmoe(["a"], 1, 2, 4, 3, levels=2)
    mixture.experts[0], mixture.experts[1] = adding(1.0, 3.0), adding(0.0, 1.0)
    mixture.gates[0] = nn.ModuleDict({"a": weighing(0.5, 0.5)})
    mixture.gates[1] = nn.ModuleDict({"a": weighing(1.0, 2.0)})  # at a mean of 3: 1 to 2 ** 3
    found = mixture(torch.ones(1, 1, 2, 2), None, ["a"])["a"]
    torch.testing.assert_close(found, torch.full((1, 1, 2, 2), 3 + 8 / 9))


def test_a_tasks_gate_weighs_its_own_experts_and_the_shared_ones() -> None:
    level = Extraction(["a", "b"], 1, own=1, shared=1, width=4, kernel=3, onward=False)
    level.own["a"], level.own["b"], level.shared = adding(10.0), adding(1000.0), adding(20.0)
    level.gates["a"] = weighing(0.75, 0.25)
    ones = torch.ones(1, 1, 2, 2)
    found = level({"a": ones, "b": ones, "": ones}, None, ["a"])
    torch.testing.assert_close(found["a"], ones + 12.5)  # 0.75 * 10 + 0.25 * 20
    assert list(found) == ["a"]  # a single level has no shared gate


def test_between_levels_a_shared_gate_weighs_the_experts_of_all_tasks() -> None:
    level = Extraction(["a", "b"], 1, own=1, shared=1, width=4, kernel=3, onward=True)
    level.own["a"], level.own["b"], level.shared = adding(10.0), adding(20.0), adding(40.0)
    level.shared_gate = weighing(0.25, 0.25, 0.5)
    ones = torch.ones(1, 1, 2, 2)
    found = level({"a": ones, "b": ones, "": ones}, None, ["a", "b"])
    torch.testing.assert_close(found[""], ones + 27.5)  # 0.25 * 10 + 0.25 * 20 + 0.5 * 40


def test_a_task_reaches_another_tasks_experts_through_the_shared_gate_of_ple_but_not_in_cgc() -> None:
    x = torch.randn(2, 4, 5, 5)
    for levels, reached in ((1, False), (2, True)):
        mixture = Ple(["a", "b"], 4, 1, 1, 4, 3, levels)
        mixture(x, None, ["a"])["a"].square().sum().backward()
        weights = [mixture.get_parameter(f"levels.{level}.own.b.outward.weight") for level in range(levels)]
        assert (weights[0].grad is not None and bool(weights[0].grad.any())) == reached
        assert weights[-1].grad is None  # above the last level there is nothing shared


def test_experts_computed_together_equal_experts_computed_one_by_one() -> None:
    experts = Experts(4, 3, 8, 3).double()
    nn.init.normal_(experts.norm.weight)
    nn.init.normal_(experts.norm.bias)
    x = torch.randn(2, 4, 5, 7, dtype=torch.float64)
    found = experts(x)
    for e in range(3):
        inner, outer = slice(8 * e, 8 * e + 8), slice(4 * e, 4 * e + 4)
        hidden = F.conv2d(x, experts.inward.weight[inner], padding=1)
        hidden = F.group_norm(hidden, 1, experts.norm.weight[inner], experts.norm.bias[inner]).relu()
        bias = experts.outward.bias[outer]  # type: ignore[index]
        one = x + F.conv2d(hidden, experts.outward.weight[outer], bias, padding=1)
        torch.testing.assert_close(found[:, e], one)


def test_equal_gates_give_the_mean_of_the_experts() -> None:
    mixture = Mmoe(["a"], 4, 3, 4, 3)
    nn.init.zeros_(mixture.get_parameter("gates.0.a.linear.weight"))
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(mixture(x, None, ["a"])["a"], mixture.experts[0](x).mean(1))


def test_a_gate_reads_the_pooled_map_and_takes_any_size() -> None:
    gate = Gate(4, 3)
    assert sum(p.numel() for p in gate.parameters()) == 12  # not a weight for every pixel
    x = torch.randn(1, 4, 6, 6)
    torch.testing.assert_close(gate(x), gate(x.flip(2)))
    torch.testing.assert_close(gate(x), gate(x.repeat(1, 1, 2, 3)))


def test_a_gate_does_not_read_padding() -> None:
    x = torch.randn(1, 4, 2, 3)
    padding = torch.tensor([[[False, False, True, True], [False, False, True, True]]])
    padded = torch.cat([x[..., :2], torch.full((1, 4, 2, 2), 100.0)], 3)
    torch.testing.assert_close(pooled(padded, padding), x[..., :2].mean((2, 3)))


@pytest.mark.parametrize("method", MIXTURES)
def test_gradients_of_a_mixture_are_those_of_finite_differences(method: str) -> None:
    torch.manual_seed(0)
    mixture = MIXTURES[method](["a", "b"]).double()
    names = [name for name, _ in mixture.named_parameters()]

    def run(x: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        called = torch.func.functional_call(mixture, dict(zip(names, values, strict=True)), (x, None, ["a", "b"]))
        return tuple(called.values())

    x = torch.randn(2, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, *mixture.parameters()), fast_mode=True)


@pytest.mark.parametrize("method", MIXTURES)
def test_a_task_gets_the_same_in_whatever_order_tasks_are_named(method: str) -> None:
    one, other = MIXTURES[method](["a", "b", "c"]), MIXTURES[method](["c", "a", "b"])
    state = one.state_dict()
    for name in state:
        if "shared_gate" in name:  # rows: an expert of each task, then the shared ones
            state[name] = state[name][[2, 0, 1, 3, 4]]
    other.load_state_dict(state)
    x = torch.randn(2, 4, 3, 5)
    before, after = one(x, None, ["a", "b", "c"]), other(x, None, ["c", "b", "a"])
    for task in "abc":
        torch.testing.assert_close(before[task], after[task])


@pytest.mark.parametrize("method", METHODS)
def test_a_task_gives_the_same_whether_others_are_beside_it_or_not(method: str) -> None:
    net = build(method).eval()
    together = net(batches())
    for name, batch in batches().items():
        torch.testing.assert_close(net({name: batch})[name], together[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_vit"])
def test_every_expert_of_every_task_learns(method: str, backbone: str) -> None:
    net = build(method, name=backbone, **({"options": {"img_size": 64}} if backbone == "test_vit" else {}))
    torch.stack(list(net(batches()).values())).sum().backward()
    parameters = dict(net.shared.mixtures.named_parameters())  # type: ignore[union-attr]
    assert parameters
    for name, parameter in parameters.items():
        if name.startswith("16.") and ".v." in name:  # the VQA head looks at one level only
            continue
        assert parameter.grad is not None, name
        assert math.isfinite(parameter.grad.abs().sum()), name


@pytest.mark.parametrize("method", METHODS)
def test_placeholder_tokens_and_images_of_other_sizes_pass_through_a_mixture(method: str) -> None:
    net = build(method, count=4)
    data = batches()
    data["s"] = replace(
        data["s"], images=data["s"].images[..., :32, :48], masks=data["s"].masks[:, :32, :48],  # type: ignore[attr-defined,call-arg]
        contents=torch.tensor([[32, 40], [20, 48]]),
    )  # fmt: skip
    torch.stack(list(net(data).values())).sum().backward()
    assert net.placeholders is not None
    assert net.placeholders.bank.tokens.grad is not None
    assert net.parameters_by_part()["experts"] > 0
    assert sum(net.parameters_by_part().values()) == sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_mixture_predicts_the_same(method: str, tmp_path: Path) -> None:
    net, other = build(method).eval(), build(method).eval()
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, tmp_path / "w.safetensors")
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    batch = batches()["c"]
    assert torch.equal(net.predict("c", batch), other.predict("c", batch))


def test_tasks_that_hold_the_same_images_have_the_experts_computed_once() -> None:
    net = build("mmoe").eval()
    data = batches()
    shared = replace(data["v"], images=data["d"].images)
    calls = []
    net.shared.mixtures["8"].experts[0].register_forward_hook(lambda *_: calls.append(1))  # type: ignore[union-attr,index]
    losses = net({"d": data["d"], "v": shared})
    assert len(calls) == 1
    torch.testing.assert_close(losses["v"], net({"v": shared})["v"])
