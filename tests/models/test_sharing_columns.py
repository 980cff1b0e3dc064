"""A trunk per task: single, soft, asymmetric and customized sharing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests_support import batches, document
from torch import nn

from harness.documents import parse
from harness.errors import HarnessError
from harness.models.config import ModelConfig
from harness.models.features import Features
from harness.models.network import PENALTY, MultiTaskNetwork, TaskSpec
from harness.models.sharing.joining import Projection, summed

SPECS = {
    "c": TaskSpec("classification", 5),
    "d": TaskSpec("detection", 3),
    "s": TaskSpec("segmentation", 4),
    "v": TaskSpec("vqa", 7, words=10),
}
METHODS: list[dict[str, Any]] = [
    {"name": "single"},
    {"name": "soft"},
    {"name": "soft", "norm": "trace"},
    {"name": "soft", "norm": "l21"},
    {"name": "asymmetric"},
    {"name": "customized"},
    {"name": "customized", "combine": "concat"},
]
VIT = {"name": "test_vit", "options": {"img_size": 64}}
SWIN = {
    "name": "swin_tiny_patch4_window7_224",
    "options": {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1], "window_size": 2},
}


def build(
    method: dict[str, Any], names: str = "cdsv", count: int = 0, backbone: dict[str, Any] | None = None, **tokens: Any
) -> MultiTaskNetwork:
    section = document(count)["model"]
    section["backbone"] |= backbone or {}
    section["placeholders"] |= tokens
    section["sharing"] = method
    torch.manual_seed(0)
    return MultiTaskNetwork(parse(ModelConfig, section, "a.yaml"), {name: SPECS[name] for name in names})


def reached(net: MultiTaskNetwork, name: str) -> set[str]:
    """Weights with a gradient of one task's loss that is not 0."""
    net.zero_grad()
    net({name: batches()[name]})[name].backward()
    return {key for key, one in net.named_parameters() if one.grad is not None and one.grad.any()}


def untangle(net: MultiTaskNetwork) -> None:
    """Give projections, and what tokens write, weights other than those they start with."""
    for key, one in net.named_parameters():
        if ".projections." in key or key.endswith(".up.weight"):
            nn.init.normal_(one, std=0.1)


@pytest.mark.parametrize("name", ["c", "d", "s", "v"])
@pytest.mark.parametrize("method", ["single", "soft", "asymmetric"])
def test_one_task_is_hard_sharing_bit_for_bit(name: str, method: str) -> None:
    data = {name: batches()[name]}
    one, hard = build({"name": method}, name), build({"name": "hard"}, name)
    torch.manual_seed(1)
    losses = one(data)
    torch.manual_seed(1)
    assert torch.equal(losses[name], hard(data)[name])
    assert float(losses.get(PENALTY, torch.tensor(0.0))) == 0
    states = one.state_dict(), hard.state_dict()
    assert [value.shape for value in states[0].values()] == [value.shape for value in states[1].values()]


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("backbone", [{"name": "test_resnet"}, VIT, SWIN], ids=lambda one: str(one["name"]))
@pytest.mark.parametrize("count", [0, 4])
def test_all_tasks_learn_with_every_kind_of_backbone(
    method: dict[str, Any], backbone: dict[str, Any], count: int
) -> None:
    net = build(method, count=count, backbone=backbone)
    data = batches()
    data["s"] = replace(
        data["s"], images=data["s"].images[..., :32, :48], masks=data["s"].masks[:, :32, :48],  # type: ignore[attr-defined,call-arg]
        contents=torch.tensor([[32, 40], [20, 48]]),
    )  # fmt: skip
    losses = net(data)
    assert (PENALTY in losses) == (method["name"] == "soft")
    torch.stack(list(losses.values())).sum().backward()
    assert all(one.grad is None or one.grad.isfinite().all() for one in net.parameters())
    assert sum(net.parameters_by_part().values()) == sum(one.numel() for one in net.parameters())
    if net.placeholders is not None:
        assert net.placeholders.bank.tokens.grad is not None
        assert {name.partition("/")[0] for name in net.site_names() if "/backbone." in name} == set("cdsv")


@pytest.mark.parametrize(
    ("backbone", "tokens"),
    [({}, {"placement": "input"}), (VIT, {"mechanism": "prefix_deep"}), ({}, {"sharing": "per_task"})],
    ids=lambda one: str(one),
)
@pytest.mark.parametrize("method", ["single", "asymmetric", "customized"])
def test_every_kind_of_placeholder_goes_through_a_tasks_trunks(
    method: str, backbone: dict[str, Any], tokens: dict[str, Any]
) -> None:
    net = build({"name": method}, count=4, backbone=backbone, **tokens)
    torch.stack(list(net(batches()).values())).sum().backward()
    assert net.placeholders is not None
    assert net.placeholders.bank.tokens.grad is not None


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_saved_network_predicts_the_same(method: dict[str, Any], tmp_path: Path) -> None:
    net, other = build(method, "cs", 4), build(method, "cs", 4)
    net({name: batches()[name] for name in "cs"})
    net.eval(), other.eval()
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, tmp_path / "w.safetensors")
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    for name in "cs":
        assert torch.equal(net.predict(name, batches()[name]), other.predict(name, batches()[name]))


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_order_of_tasks_does_not_matter(method: dict[str, Any]) -> None:
    if method["name"] == "asymmetric":
        method = method | {"sources": {"c": ["d"], "d": ["c", "s"]}}
    one, other = build(method, "cds"), build(method, "sdc")
    untangle(one)
    other.load_state_dict(one.state_dict())
    for module in [*one.modules(), *other.modules()]:
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    data = {name: batches()[name] for name in "cds"}
    before, after = one(data), other({name: data[name] for name in "sdc"})
    for name, loss in before.items():
        torch.testing.assert_close(loss, after[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [0, 4])
def test_single_tasks_share_nothing_but_placeholder_tokens(count: int) -> None:
    net = build({"name": "single"}, count=count)
    untangle(net)
    sets = [reached(net, name) for name in "cdsv"]
    both = {key for number, one in enumerate(sets) for other in sets[:number] for key in one & other}
    assert both == ({"placeholders.bank.tokens"} if count else set())


def test_columns_are_drawn_each_for_itself() -> None:
    net = build({"name": "single"}, "cs")
    state = net.state_dict()
    key = "backbone.body.conv1.weight"
    weights = [state[name] for name in state if name.endswith(key) or name.endswith("body.conv1.0.weight")]
    assert len(weights) == 2
    assert not torch.equal(*weights)


def test_a_task_does_not_train_its_sources_nor_move_their_statistics() -> None:
    net = build({"name": "asymmetric"}, "csv", 4)
    untangle(net)
    before = {key: value.clone() for key, value in net.named_buffers()}
    assert not any(key.startswith(("shared.columns.c.", "shared.columns.v.")) for key in reached(net, "s"))
    moved = {key for key, value in net.named_buffers() if not torch.equal(value, before[key])}
    moved = {key for key in moved if key.startswith("shared.")}
    assert moved
    assert all(key.startswith("shared.columns.s.") for key in moved)
    assert all(module.training for module in net.modules())


def test_in_half_precision_a_source_is_trained_with_no_cast_from_when_it_was_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some releases of torch would take up the cast without gradient; the installed one may or may not."""
    net, cleared, clear = build({"name": "asymmetric"}, "cs"), [], torch.clear_autocast_cache
    data = {name: batches()[name] for name in "cs"}
    monkeypatch.setattr(torch, "clear_autocast_cache", lambda: (clear(), cleared.append(True)))
    net(data)
    assert not cleared
    with torch.autocast("cpu", torch.bfloat16):
        losses = net(data)
        assert len(cleared) == 1  # there is one task with a source
    losses["c"].backward()
    weights = net.get_submodule("shared.columns.c.backbone").named_parameters()
    assert [name for name, weight in weights if weight.grad is None] == []


@pytest.mark.parametrize(("task", "source"), [("s", "c"), ("c", "s"), ("s", "v")])
def test_a_task_reads_its_sources(task: str, source: str) -> None:
    net = build({"name": "asymmetric", "sources": {task: [source]}}, "csv").eval()
    data = {task: batches()[task]}
    single = build({"name": "single"}, "csv").eval()
    single.load_state_dict({key: value for key, value in net.state_dict().items() if ".projections." not in key})
    torch.testing.assert_close(net(data)[task], single(data)[task])  # other tasks' features start with a weight of 0
    assert any(key.startswith(f"shared.projections.{task}.") for key in reached(net, task))
    untangle(net)
    before = net(data)[task]
    for parameter in net.get_submodule(f"shared.columns.{source}").parameters():
        nn.init.normal_(parameter, std=0.05)
    assert not torch.equal(before, net(data)[task])


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"c": ["x"]}, "'x' is not a task of this submission"),
        ({"x": ["c"]}, "'x' is not a task of this submission"),
        ({"c": ["c"]}, "name each other task once at most"),
        ({"c": ["s", "s"]}, "name each other task once at most"),
    ],
)
def test_sources_that_are_no_other_tasks_are_refused(sources: dict[str, list[str]], message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        build({"name": "asymmetric", "sources": sources}, "cs")


def test_customized_tasks_share_one_trunk_and_have_one_of_their_own() -> None:
    net = build({"name": "customized", "combine": "concat"}, "cs")
    one, other = reached(net, "c"), reached(net, "s")
    assert one & other
    assert all(key.startswith("shared.bottom.") for key in one & other)
    assert any(key.startswith("shared.columns.c.") for key in one - other)


def test_concatenated_features_start_as_summed_ones() -> None:
    sums, joins = build({"name": "customized"}, "cs").eval(), build({"name": "customized", "combine": "concat"}, "cs")
    joins.eval().load_state_dict(sums.state_dict(), strict=False)
    data = {name: batches()[name] for name in "cs"}
    before, after = sums(data), joins(data)
    for name in data:
        torch.testing.assert_close(before[name], after[name])


def test_a_projection_weighs_concatenated_channels() -> None:
    project = Projection([1, 2], (1.0, 0.0))
    with torch.no_grad():
        project.linear.weight.copy_(torch.tensor([[2.0, 10.0, 100.0]]))
        project.linear.bias.fill_(0.5)
    vectors = torch.tensor([[1.0]]), torch.tensor([[3.0, 4.0]])
    torch.testing.assert_close(project(vectors), torch.tensor([[432.5]]))  # 2 + 30 + 400 + 0.5
    maps = [one[:, :, None, None].expand(-1, -1, 2, 3) for one in vectors]
    torch.testing.assert_close(project(maps), torch.full((1, 1, 2, 3), 432.5))


def test_gradients_of_a_projection_are_those_of_finite_differences() -> None:
    project = Projection([2, 3], (1.0, 0.0)).double()
    inputs = [torch.randn(2, width, 2, 3, dtype=torch.float64, requires_grad=True) for width in (2, 3)]
    assert torch.autograd.gradcheck(lambda *tensors: project(tensors), inputs)


def test_summed_features_are_sums_of_every_map() -> None:
    one = Features({8: torch.ones(1, 2, 3, 3)}, torch.ones(1, 4), None)
    other = Features({8: torch.full((1, 2, 3, 3), 2.0)}, torch.full((1, 4), 3.0), None)
    found = summed(one, other)
    assert found.pyramid[8].unique().tolist() == [3.0]
    assert found.pooled.unique().tolist() == [4.0]
