"""Sluice networks: columns mixed by halves, heads that read mixed levels, and halves kept different."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests_support import batches, document
from torch import Tensor, nn

from harness.models.config import ModelConfig
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.models.sharing.sluice import LevelMix, SluiceSharing, SubspaceStitch, orthogonality

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
]


def build(names: str, backbone: dict[str, Any] | None = None, count: int = 0, **sharing: Any) -> MultiTaskNetwork:
    section = document(count)["model"]
    section["backbone"] |= backbone or {}
    section["sharing"] = {"name": "sluice", **sharing}
    torch.manual_seed(0)
    return MultiTaskNetwork(ModelConfig.model_validate(section), {name: SPECS[name] for name in names})


def shared(net: MultiTaskNetwork) -> SluiceSharing:
    assert isinstance(net.shared, SluiceSharing)
    return net.shared


def test_halves_of_all_columns_are_mixed_by_one_matrix() -> None:
    unit = SubspaceStitch(2)
    matrix = torch.tensor([[1.0, 0.0, 2.0, 0.0], [0.0, 0.5, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    with torch.no_grad():
        unit.alpha.copy_(matrix.view(2, 2, 4))
    a, b = torch.tensor([1.0, 10.0]).view(1, 2, 1, 1), torch.tensor([3.0, 30.0]).view(1, 2, 1, 1)
    first, second = unit([a, b])
    assert first.flatten().tolist() == [7.0, 5.0]  # 1 + 2 * 3, and half of 10
    assert second.flatten().tolist() == [10.0, 44.0]


def test_halves_start_with_nine_tenths_of_their_own() -> None:
    alpha = SubspaceStitch(2).alpha.flatten(0, 1)
    torch.testing.assert_close(alpha, torch.eye(4) * 0.9 + (1 - torch.eye(4)) * (0.1 / 3))


def test_a_head_reads_levels_mixed_from_all_levels() -> None:
    mix = LevelMix(2)
    torch.testing.assert_close(mix.beta, torch.tensor([[0.9, 0.1], [0.1, 0.9]]))
    fine = torch.tensor([[1.0, 3.0], [5.0, 7.0]]).view(1, 1, 2, 2)
    found = mix({8: fine, 16: torch.full((1, 1, 1, 1), 10.0)})
    torch.testing.assert_close(found[8], 0.9 * fine + 1)
    torch.testing.assert_close(found[16], torch.full((1, 1, 1, 1), 9.4))  # 0.9 * 10 + 0.1 * the mean of fine


def test_the_penalty_is_what_halves_of_a_layer_have_in_common() -> None:
    weight = torch.tensor([[1.0, 0.0], [1.0, 1.0], [2.0, 0.0], [0.0, 3.0]])  # G1ᵀ G2 = [[2, 0], [2, 3]]
    assert orthogonality(weight) == 17
    assert orthogonality(torch.eye(4)) == 0
    assert orthogonality(torch.tensor([[1.0, 0.0], [5.0, 0.0], [0.0, 1.0], [0.0, 2.0]])) == 0  # alike within a half


def test_the_penalty_sums_over_columns_and_layers() -> None:
    net = build("cd", stages=2, orthogonality=0.5)
    expected = torch.zeros(())
    for task in "cd":
        body = shared(net)._trunk(task).backbone.body
        for name in shared(net)._weights:
            weight = body.get_parameter(name)
            a, b = weight[: len(weight) // 2].flatten(1), weight[len(weight) // 2 :].flatten(1)
            expected = expected + 0.5 * sum((torch.dot(x, y) ** 2 for x in a for y in b), torch.zeros(()))
    assert len(shared(net)._weights) == 2
    torch.testing.assert_close(shared(net).penalty("cdsv"), expected, rtol=1e-4, atol=0)


def test_gradients_are_those_of_finite_differences() -> None:
    unit, mix = SubspaceStitch(2, "nhwc").double(), LevelMix(2).double()
    columns = [torch.randn(2, 3, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]

    def stitch(alpha: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.func.functional_call(unit, {"alpha": alpha}, (values,)))

    def level(beta: Tensor, fine: Tensor, coarse: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.func.functional_call(mix, {"beta": beta}, ({8: fine, 16: coarse},)).values())

    fine, coarse = (torch.randn(1, 2, n, n, dtype=torch.float64, requires_grad=True) for n in (4, 2))
    assert torch.autograd.gradcheck(stitch, (unit.alpha, *columns), fast_mode=True)
    assert torch.autograd.gradcheck(level, (mix.beta, fine, coarse), fast_mode=True)
    weight = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(orthogonality, (weight,))


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda one: one["name"])
def test_every_weight_of_every_unit_and_the_penalised_layers_learn(backbone: dict[str, Any]) -> None:
    net = build("cdsv", backbone, count=4)
    (torch.stack(list(net(batches()).values())).sum() + shared(net).penalty("cdsv")).backward()
    for name, parameter in [*shared(net).units.named_parameters(), *shared(net).levels.named_parameters()]:
        gradient = parameter.grad
        assert gradient is not None, name
        assert gradient.abs().min() > 0 or name.startswith("v."), name  # the VQA head looks at one level only
    assert shared(net)._weights
    assert sum(net.parameters_by_part().values()) == sum(p.numel() for p in net.parameters())


def test_columns_that_give_nothing_to_each_other_are_separate_networks_bit_for_bit() -> None:
    net = build("cs").eval()
    for unit in shared(net).units.values():
        identity = torch.eye(4).view(2, 2, 4)[list(unit._readers)]  # type: ignore[arg-type]
        unit.load_state_dict({"alpha": identity})
    for mix in shared(net).levels.values():
        mix.load_state_dict({"beta": torch.eye(2)})
    section = document(0)["model"]
    for name in "cs":
        alone = MultiTaskNetwork(ModelConfig.model_validate(section), {name: SPECS[name]}).eval()
        state = net.state_dict()
        alone.load_state_dict({
            key: state[key.replace("shared.trunk.", f"shared.columns.{name}.")] for key in alone.state_dict()
        })  # fmt: skip
        assert torch.equal(net.predict(name, batches()[name]), alone.predict(name, batches()[name]))


def test_a_saved_network_predicts_the_same(tmp_path: Path) -> None:
    net, other = build("cs").eval(), build("cs").eval()
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, tmp_path / "w.safetensors")
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    for name in "cs":
        assert torch.equal(net.predict(name, batches()[name]), other.predict(name, batches()[name]))
