"""Dynamic routing: each task keeps or skips each block of one trunk."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests_support import batches, document
from torch import nn

from harness.errors import HarnessError
from harness.models.config import ModelConfig
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.models.sharing.dynamic_routing import DynamicRoutingSharing, Policy, blocks_of
from harness.training.config import OptimizerConfig
from harness.training.optimization import build_optimizer

SPECS = {
    "c": TaskSpec("classification", 5),
    "d": TaskSpec("detection", 3),
    "s": TaskSpec("segmentation", 4),
    "v": TaskSpec("vqa", 7, words=10),
}
SWIN = {"embed_dim": 8, "depths": [1, 2, 1, 1], "num_heads": [1, 1, 1, 1], "window_size": 2}
CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
}
BACKBONES: list[tuple[dict[str, Any], list[str]]] = [
    ({"name": "test_resnet"}, ["layer1.0"]),
    ({"name": "test_convnext"}, [f"stages.{s}.blocks.{b}" for s, n in enumerate((1, 2, 4, 2)) for b in range(n)]),
    ({"name": "test_vit", "options": {"img_size": 64}}, [f"blocks.{b}" for b in range(6)]),
    (
        {"name": "swin_tiny_patch4_window7_224", "options": SWIN},
        ["layers.0.blocks.0", "layers.1.blocks.0", "layers.1.blocks.1", "layers.2.blocks.0", "layers.3.blocks.0"],
    ),
    ({"library": "torchvision", "name": "resnet18"}, ["layer1.0", "layer1.1", "layer2.1", "layer3.1", "layer4.1"]),
    ({"library": "open_clip", "name": "ViT-B-32", "options": CLIP}, [f"transformer.resblocks.{b}" for b in range(2)]),
]


def build(names: str = "cdsv", backbone: dict[str, Any] | None = None, count: int = 0, **more: Any) -> MultiTaskNetwork:
    section = document(count)["model"]
    section["backbone"] |= backbone or {"name": "test_vit", "options": {"img_size": 64}}
    section["sharing"] = {"name": "dynamic_routing", **more}
    torch.manual_seed(0)
    return MultiTaskNetwork(ModelConfig.model_validate(section), {name: SPECS[name] for name in names})


def shared(net: MultiTaskNetwork) -> DynamicRoutingSharing:
    assert isinstance(net.shared, DynamicRoutingSharing)
    return net.shared


def choose(net: MultiTaskNetwork, task: str, *kept: float) -> None:
    with torch.no_grad():
        shared(net).policy.logits[task].copy_(torch.tensor(kept) * 200 - 100)


def test_the_penalty_is_that_of_a_calculation_by_hand() -> None:
    policy = Policy(["a", "b"], 2, 1.0)
    with torch.no_grad():
        policy.logits["a"].copy_(torch.tensor([0.0, math.log(3)]))  # chances 1/2, 3/4
        policy.logits["b"].copy_(torch.tensor([math.log(4), 0.0]))  # chances 4/5, 1/2
    sparsity = math.log(0.5) + math.log(0.75) + math.log(0.8) + math.log(0.5)
    sharing = 0.5 * 0.3  # of the first block (2 - 1)/2, of the last one nothing
    torch.testing.assert_close(policy.penalty("ab", 2.0, 10.0), torch.tensor(2 * sparsity + 10 * sharing))


@pytest.mark.parametrize("optimizer", [{"name": "sgd"}, {"name": "adamw", "weight_decay": 0.1}], ids=str)
def test_the_policy_of_a_task_that_rests_stays_to_the_bit(optimizer: dict[str, Any]) -> None:
    net = build("cs", {"name": "test_resnet"}, sparsity=1.0, sharing=1.0).train()
    steps = build_optimizer(net, OptimizerConfig.model_validate(optimizer | {"learning_rate": 0.1}))
    seen = []
    for tasks in ("cs", "s", "s"):
        steps.zero_grad(set_to_none=True)
        torch.stack(list(net({task: batches()[task] for task in tasks}).values())).sum().backward()
        steps.step()
        seen.append({task: logits.detach().clone() for task, logits in shared(net).policy.logits.items()})
    assert torch.equal(seen[1]["c"], seen[0]["c"])
    assert torch.equal(seen[2]["c"], seen[0]["c"])  # nor does momentum carry it on
    assert not torch.equal(seen[1]["s"], seen[0]["s"])


def test_the_penalty_is_of_the_tasks_of_the_step() -> None:
    policy = Policy(["a", "b", "c"], 2, 1.0)
    with torch.no_grad():
        policy.logits["b"].fill_(7.0)
    other = Policy(["a", "c"], 2, 1.0)
    assert torch.equal(policy.penalty(["c", "a"], 2.0, 10.0), other.penalty(["a", "c"], 2.0, 10.0))
    assert policy.penalty([], 2.0, 10.0) == 0


def test_blocks_are_kept_as_often_as_the_policy_says_whatever_the_temperature() -> None:
    policy = Policy(["a"], 20_000, 5.0)
    with torch.no_grad():
        policy.logits["a"].fill_(math.log(0.7 / 0.3))
    gates = policy("a").detach()
    assert set(gates.tolist()) == {0.0, 1.0}
    assert abs(float(gates.mean()) - 0.7) < 0.02


def test_the_gradient_of_a_decision_is_that_of_the_soft_one() -> None:
    policy = Policy(["a"], 3, 2.0)
    policy("a").sum().backward()
    noisy = policy.logits["a"].detach() + policy._noise("a")
    soft = torch.sigmoid(noisy / 2)
    gradient = policy.logits["a"].grad
    assert gradient is not None
    torch.testing.assert_close(gradient, (soft * (1 - soft) / 2).float())


def test_draws_change_from_step_to_step_and_go_on_where_they_were_saved() -> None:
    torch.manual_seed(3)
    policy = Policy(["a", "b"], 200, 1.0)
    first = policy("a")
    assert torch.equal(policy("a"), first)  # within a step
    assert not torch.equal(policy("b"), first)
    policy.advance()
    second = policy("a")
    assert not torch.equal(second, first)
    torch.manual_seed(99)  # another process, with a stream of its own
    torch.rand(7)
    other = Policy(["a", "b"], 200, 1.0)
    other.load_state_dict(policy.state_dict())
    torch.rand(7)
    assert torch.equal(other("a"), second)


def test_draws_leave_the_global_stream_alone() -> None:
    policy = Policy(["a"], 4, 1.0)
    before = torch.get_rng_state()
    policy("a")
    assert torch.equal(torch.get_rng_state(), before)


def test_in_evaluation_the_likelier_choice_is_taken() -> None:
    policy = Policy(["a"], 2, 1.0).eval()
    with torch.no_grad():
        policy.logits["a"].copy_(torch.tensor([0.1, -0.1]))
    assert policy("a").tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("backbone", "expected"), BACKBONES, ids=lambda one: one["name"] if isinstance(one, dict) else ""
)
def test_the_blocks_of_a_model_are_those_that_keep_their_shape(backbone: dict[str, Any], expected: list[str]) -> None:
    net = build("c", backbone)
    assert blocks_of(shared(net).trunk.backbone) == expected
    assert len(shared(net).policy.logits["c"]) == len(expected)


@pytest.mark.parametrize("backbone", [one for one, _ in BACKBONES[:4]], ids=lambda one: one["name"])
def test_a_task_that_keeps_everything_is_hard_sharing_bit_for_bit(backbone: dict[str, Any]) -> None:
    net = build("cs", backbone).eval()
    section = document(0)["model"]
    section["backbone"] |= backbone | {"batch_norm": "per_task"}
    hard = MultiTaskNetwork(ModelConfig.model_validate(section), {name: SPECS[name] for name in "cs"}).eval()
    hard.load_state_dict({name: value for name, value in net.state_dict().items() if ".policy." not in name})
    for name in "cs":
        assert torch.equal(net.predict(name, batches()[name]), hard.predict(name, batches()[name]))


def test_a_skipped_block_passes_its_input_on_for_the_task_that_skips_it() -> None:
    net = build("cs").eval()
    before = {name: net.predict(name, batches()[name]) for name in "cs"}
    choose(net, "c", 1, 1, 0, 1, 1, 1)
    after = {name: net.predict(name, batches()[name]) for name in "cs"}
    assert torch.equal(before["s"], after["s"])
    assert not torch.equal(before["c"], after["c"])
    shared(net).trunk.backbone.body.blocks[2].requires_grad_(False).mlp.fc1.weight.fill_(7.0)  # type: ignore[union-attr,index,operator]
    assert torch.equal(net.predict("c", batches()["c"]), after["c"])  # what it would have made does not matter


@pytest.mark.parametrize("backbone", [one for one, _ in BACKBONES[:4]], ids=lambda one: one["name"])
def test_policies_learn_and_tokens_pass(backbone: dict[str, Any]) -> None:
    net = build(backbone=backbone, count=4)
    data = batches()
    data["s"] = replace(
        data["s"], images=data["s"].images[..., :32, :48], masks=data["s"].masks[:, :32, :48],  # type: ignore[attr-defined,call-arg]
        contents=torch.tensor([[32, 40], [20, 48]]),
    )  # fmt: skip
    torch.stack(list(net(data).values())).sum().backward()
    for name, logits in shared(net).policy.logits.items():
        assert logits.grad is not None, name
        assert logits.grad.isfinite().all(), name
    assert shared(net).policy.logits["c"].grad.abs().min() > 0 or backbone["name"] == "test_resnet"
    assert net.placeholders is not None
    assert net.placeholders.bank.tokens.grad is not None
    assert sum(net.parameters_by_part().values()) == sum(p.numel() for p in net.parameters())


def test_a_task_gives_the_same_whether_others_are_beside_it_or_not() -> None:
    data = batches()
    one, other = build(backbone={"name": "test_resnet"}), build(backbone={"name": "test_resnet"})
    assert torch.equal(one(data)["c"], other({"c": data["c"]})["c"])  # in training, too


def test_the_order_of_tasks_changes_nothing() -> None:
    one, other = build("cds"), build("sdc")
    other.load_state_dict(one.state_dict())
    data = {name: batch for name, batch in batches().items() if name in "cds"}
    torch.manual_seed(1)  # of the heads' dropout
    before = one(data)
    torch.manual_seed(1)
    after = other(data)
    assert all(torch.equal(before[name], after[name]) for name in data)
    torch.testing.assert_close(shared(one).penalty("cdsv"), shared(other).penalty("cdsv"))


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ({"name": "test_resnet", "frozen": "all"}, "cannot be frozen wholly"),
        ({"name": "test_efficientnet"}, "has no block"),
    ],
)
def test_what_cannot_be_routed_is_refused_with_the_reason(backbone: dict[str, Any], message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        build(backbone=backbone)


def test_a_saved_network_predicts_the_same(tmp_path: Path) -> None:
    net, other = build("cs"), build("cs")
    net({name: batches()[name] for name in "cs"})
    choose(net, "c", 1, 0, 1, 0, 1, 1)
    net.eval(), other.eval()
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, tmp_path / "w.safetensors")
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    for name in "cs":
        assert torch.equal(net.predict(name, batches()[name]), other.predict(name, batches()[name]))
