"""Cross-stitch networks: columns in lock-step, mixed stage by stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests_support import batches, document
from torch import Tensor, nn

from harness.models.config import ModelConfig
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.models.sharing.cross_stitch import CrossStitch
from harness.models.sharing.lockstep import in_lockstep, meet

SPECS = {
    "c": TaskSpec("classification", 5),
    "d": TaskSpec("detection", 3),
    "s": TaskSpec("segmentation", 4),
    "v": TaskSpec("vqa", 7, words=10),
}
BACKBONES: list[dict[str, Any]] = [
    {"name": "test_resnet"},
    {"name": "test_convnext"},
    {"name": "test_vit", "options": {"img_size": 64}},
    {
        "name": "swin_tiny_patch4_window7_224",
        "options": {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1], "window_size": 2},
    },
]


def model(method: dict[str, Any], count: int = 0, backbone: dict[str, Any] | None = None, **tokens: Any) -> ModelConfig:
    section = document(count)["model"]
    section["backbone"] |= backbone or {}
    section["placeholders"] |= tokens
    section["sharing"] = method
    return ModelConfig.model_validate(section)


def build(
    names: str = "cdsv", name: str = "cross_stitch", count: int = 0, backbone: dict[str, Any] | None = None, **more: Any
) -> MultiTaskNetwork:
    torch.manual_seed(0)
    return MultiTaskNetwork(model({"name": name}, count, backbone, **more), {one: SPECS[one] for one in names})


def separate(net: MultiTaskNetwork) -> None:
    """Let no column give anything to another."""
    for unit in net.shared.units.values():  # type: ignore[union-attr]
        alpha = unit.alpha
        nn.init.zeros_(alpha)
        for row, reader in enumerate(unit._readers):
            nn.init.ones_(alpha[row, reader])


def test_every_channel_is_mixed_by_weights_of_its_own() -> None:
    unit = CrossStitch(2, 2)
    with torch.no_grad():
        unit.alpha.copy_(torch.tensor([[[1.0, 0.5], [0.0, 0.5]], [[2.0, 0.0], [1.0, 1.0]]]))
    a, b = torch.tensor([1.0, 10.0]).view(1, 2, 1, 1), torch.tensor([3.0, 30.0]).view(1, 2, 1, 1)
    first, second = unit([a, b])
    assert first.flatten().tolist() == [1.0, 20.0]  # 1 * 1 + 0 * 3, 0.5 * 10 + 0.5 * 30
    assert second.flatten().tolist() == [5.0, 30.0]  # 2 * 1 + 1 * 3, 0 * 10 + 1 * 30


def test_columns_start_with_nine_tenths_of_their_own_and_keep_their_scale() -> None:
    unit = CrossStitch(3, 4)
    torch.testing.assert_close(
        unit.alpha[:, :, 0], torch.tensor([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]])
    )
    ones = torch.ones(2, 4, 3, 3)
    torch.testing.assert_close(unit([ones, ones, ones])[1], ones)


@pytest.mark.parametrize(("layout", "shape"), [("nchw", (2, 4, 3, 5)), ("nhwc", (2, 3, 5, 4)), ("tokens", (2, 7, 4))])
def test_gradients_of_a_unit_are_those_of_finite_differences(layout: Any, shape: tuple[int, ...]) -> None:
    unit = CrossStitch(3, 4, layout).double()
    columns = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(3)]

    def run(alpha: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.func.functional_call(unit, {"alpha": alpha}, (values,)))

    assert torch.autograd.gradcheck(run, (unit.alpha, *columns), fast_mode=True)


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda one: one["name"])
def test_columns_that_give_nothing_to_each_other_are_separate_networks_bit_for_bit(backbone: dict[str, Any]) -> None:
    net = build("cs", backbone=backbone).eval()
    separate(net)
    data = {name: batch for name, batch in batches().items() if name in "cs"}
    data["s"] = replace(data["s"], images=data["s"].images[..., :48])  # encoded apart, as alone
    for name in "cs":
        alone = MultiTaskNetwork(model({"name": "hard"}, 0, backbone), {name: SPECS[name]}).eval()
        column = {
            key.replace(f"shared.columns.{name}.", "shared.trunk."): value
            for key, value in net.state_dict().items()
            if f".{name}." in key
        }
        alone.load_state_dict(column)
        assert torch.equal(net.predict(name, data[name]), alone.predict(name, data[name]))
        losses, loss = net(data), alone({name: data[name]})
        assert torch.equal(losses[name], loss[name])


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda one: one["name"])
def test_one_task_is_hard_sharing(backbone: dict[str, Any]) -> None:
    net = build("c", backbone=backbone)
    torch.manual_seed(0)
    hard = MultiTaskNetwork(model({"name": "hard"}, 0, backbone), {"c": SPECS["c"]})
    assert [p.shape for p in net.parameters()] == [p.shape for p in hard.parameters()]
    net.eval(), hard.eval()
    assert torch.equal(net({"c": batches()["c"]})["c"], hard({"c": batches()["c"]})["c"])


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda one: one["name"])
def test_every_weight_of_every_unit_learns(backbone: dict[str, Any]) -> None:
    net = build(backbone=backbone)
    torch.stack(list(net(batches()).values())).sum().backward()
    units = dict(net.shared.units.named_parameters())  # type: ignore[union-attr]
    assert len(units) >= 2
    for name, alpha in units.items():
        assert alpha.grad is not None, name
        # Every pair of columns, in the last unit too: a unit behind what the heads read would be dead.
        assert alpha.grad.abs().sum(-1).min() > 0, name


def test_a_task_trains_the_other_tasks_columns_through_the_units() -> None:
    net = build("cs")
    net({"c": batches()["c"]})["c"].backward()
    other = net.shared.columns["s"].backbone.body  # type: ignore[union-attr,index]
    assert any(p.grad is not None and bool(p.grad.any()) for p in other.parameters())


def test_no_unit_is_behind_what_heads_read() -> None:
    assert list(build("ds").shared.units) == ["act1", "layer1", "layer2", "layer3"]  # type: ignore[union-attr]
    last = build("cds").shared.units["layer4"]  # type: ignore[union-attr]
    assert last._readers == (0,)  # only the classifier reads the last stage


def test_the_order_of_tasks_changes_nothing_but_their_order() -> None:
    one = build("cds").eval()
    other = MultiTaskNetwork(model({"name": "cross_stitch"}), {name: SPECS[name] for name in "sdc"}).eval()
    state = one.state_dict()
    for name in state:
        if name.endswith("alpha"):
            state[name] = state[name].flip(1) if len(state[name]) == 1 else state[name].flip(0, 1)
    other.load_state_dict(state)
    data = {name: batch for name, batch in batches().items() if name in "cds"}
    before, after = one(data), other(data)
    for name in data:
        torch.testing.assert_close(before[name], after[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "tokens"),
    [
        ({"name": "test_resnet"}, {}),
        ({"name": "test_resnet"}, {"placement": "input"}),
        (BACKBONES[2], {}),
        (BACKBONES[2], {"mechanism": "prefix_shallow"}),
        (BACKBONES[2], {"mechanism": "prefix_deep"}),
        ({"name": "test_resnet"}, {"sharing": "per_task"}),
    ],
)
def test_placeholder_tokens_go_through_every_column(backbone: dict[str, Any], tokens: dict[str, Any]) -> None:
    net = build(count=4, backbone=backbone, **tokens)
    data = batches()
    data["s"] = replace(
        data["s"], images=data["s"].images[..., :32, :48], masks=data["s"].masks[:, :32, :48],  # type: ignore[attr-defined,call-arg]
        contents=torch.tensor([[32, 40], [20, 48]]),
    )  # fmt: skip
    torch.stack(list(net(data).values())).sum().backward()
    assert net.placeholders is not None
    assert net.placeholders.bank.tokens.grad is not None
    assert sum(net.parameters_by_part().values()) == sum(p.numel() for p in net.parameters())


def test_with_statistics_of_its_own_a_task_does_not_depend_on_the_others() -> None:
    data = batches()
    own = {"batch_norm": "per_task"}
    losses = build("cv", backbone=own)({"c": data["c"]}), build("cv", backbone=own)({"c": data["c"], "v": data["v"]})
    assert torch.equal(losses[0]["c"], losses[1]["c"])


def test_a_saved_network_predicts_the_same(tmp_path: Path) -> None:
    net, other = build("cs"), build("cs")
    net({name: batches()[name] for name in "cs"})
    net.eval(), other.eval()
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, tmp_path / "w.safetensors")
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    for name in "cs":
        assert torch.equal(net.predict(name, batches()[name]), other.predict(name, batches()[name]))


def test_calls_in_lock_step_exchange_values_wherever_they_meet() -> None:
    def call(value: int) -> int:
        first = meet("first", value)
        second: int = meet("second", 10 * first)
        return second

    found = in_lockstep([lambda: call(1), lambda: call(2)], lambda name, values: values[::-1])
    assert found == [10, 20]  # changed over twice


def test_calls_that_part_company_are_an_error_and_are_left() -> None:
    left = []

    def waiting() -> None:
        try:
            meet("first", 0)
        finally:
            left.append(True)

    with pytest.raises(RuntimeError, match="same stages"):
        in_lockstep([waiting, lambda: None], lambda name, values: values)
    assert left


def test_mixed_precision_and_gradient_mode_hold_in_all_columns() -> None:
    net = build("cs").eval()
    data = batches()
    with torch.autocast("cpu", torch.bfloat16):
        loss = net({"c": data["c"]})["c"]
    assert loss.isfinite()
    assert not net.predict("c", data["c"]).requires_grad


@pytest.mark.parametrize("name", ["cross_stitch", "sluice"])
@pytest.mark.parametrize("count", [0, 4])
def test_images_that_tasks_hold_together_go_through_the_columns_once_with_the_losses_of_copies(
    name: str, count: int
) -> None:
    net = build(
        name=name, count=count, backbone={"name": "test_convnext"}
    )  # no batch norm, which would see fewer images
    data = batches()
    images = torch.cat([data["d"].images, data["c"].images[:1]])
    held = {task: replace(data[task].rows(0, 2), images=images[:2]) for task in "cdsv"}
    copies = {task: replace(batch, images=batch.images.clone()) for task, batch in held.items()}
    seen: list[int] = []
    net.shared.columns["d"].backbone.register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))  # type: ignore[union-attr]
    once, apart = net.eval()(held), net(copies)
    assert seen == [2, 8]
    for task, loss in apart.items():
        torch.testing.assert_close(once[task], loss)
    torch.testing.assert_close(
        *[
            torch.autograd.grad(sum(one.values()), net.shared.columns["s"].backbone.body.stem[0].weight)[0]
            for one in (once, apart)
        ]
    )  # type: ignore[union-attr]


def test_tasks_with_tokens_or_statistics_of_their_own_still_go_through_the_columns_on_their_own() -> None:
    for net in (build(count=4, sharing="per_task"), build(backbone={"batch_norm": "per_task"})):
        data = batches()
        held = {task: replace(data[task].rows(0, 2), images=data["d"].images) for task in "cdsv"}
        seen: list[int] = []
        net.shared.columns["d"].backbone.register_forward_pre_hook(lambda _, x, seen=seen: seen.append(len(x[0])))  # type: ignore[union-attr]
        net(held)
        assert sum(seen) == 8
