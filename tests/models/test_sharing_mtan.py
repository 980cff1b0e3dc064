"""MTAN: soft attention masks per task at each stage of one trunk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests_support import batches, document
from torch import Tensor, nn

from harness.errors import HarnessError
from harness.models.config import ModelConfig
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.models.sharing.mtan import AttentionStages

SPECS = {
    "c": TaskSpec("classification", 5),
    "d": TaskSpec("detection", 3),
    "s": TaskSpec("segmentation", 4),
    "v": TaskSpec("vqa", 7, words=10),
}


def build(count: int = 0, **backbone: Any) -> MultiTaskNetwork:
    model = document(count)["model"]
    model["backbone"] |= backbone
    model["sharing"] = {"name": "mtan", "reduction": 2}
    torch.manual_seed(0)
    return MultiTaskNetwork(ModelConfig.model_validate(model), SPECS)


def stages(*tasks: str, pooled: bool = False) -> AttentionStages:
    torch.manual_seed(0)
    return AttentionStages(dict.fromkeys(tasks, pooled), {8: 2, 16: 4}, 6, 1).eval()


def inputs() -> tuple[dict[int, Tensor], Tensor]:
    torch.manual_seed(1)
    return {8: torch.randn(2, 2, 5, 7), 16: torch.randn(2, 4, 3, 4)}, torch.randn(2, 6)


def test_a_mask_of_one_half_halves_the_features() -> None:
    attention = stages("a", pooled=True)
    maps, pooled = inputs()
    for name, parameter in attention.masks.named_parameters():
        if name.endswith("4.weight") or name.endswith("4.bias"):  # the last norm: sigmoid(0) = 1/2
            nn.init.zeros_(parameter)
    attended, vector = attention("a", maps, pooled)
    assert all(torch.equal(attended[stride], maps[stride] / 2) for stride in maps)
    assert torch.equal(vector, pooled / 2)


def test_two_stages_give_the_numbers_of_a_calculation_by_hand() -> None:
    attention = AttentionStages({"a": False}, {8: 1, 16: 1}, 1, 1).eval()
    for parameter in attention.parameters():
        if parameter.dim() == 4:
            nn.init.zeros_(parameter)
            parameter.data[:, :, parameter.shape[2] // 2, parameter.shape[3] // 2] = 1.0
    fine = torch.tensor([[[[1.0, 2.0], [3.0, -1.0]]]])
    attended, _ = attention("a", {8: fine, 16: torch.tensor([[[[0.5]]]])}, torch.zeros(1, 1))
    # Fresh batch norms divide by sqrt(1 + 1e-5). The first mask is sigmoid(relu(p)), the attended features p * mask:
    # 3 * sigmoid(3) = 2.8577 is the greatest of them and goes up; the second mask is sigmoid(0.5 + 2.8577) = 0.9664.
    torch.testing.assert_close(attended[8], torch.tensor([[[[0.7311, 1.7616], [2.8577, -0.5]]]]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(attended[16], torch.tensor([[[[0.5 * 0.9664]]]]), rtol=1e-4, atol=1e-4)


def test_a_stage_is_fed_on_by_what_was_attended_below() -> None:
    attention = stages("a")
    maps, pooled = inputs()
    before = attention("a", maps, pooled)[0][16]
    nn.init.normal_(attention.get_parameter("masks.a.8.0.weight"))  # another mask at the first stage
    assert not torch.allclose(attention("a", maps, pooled)[0][16], before)


def test_tasks_have_masks_of_their_own_and_share_what_brings_features_up() -> None:
    attention = stages("a", "b")
    maps, pooled = inputs()
    first, second = attention("a", maps, pooled)[0], attention("b", maps, pooled)[0]
    assert not torch.allclose(first[8], second[8])
    attention.masks["b"].load_state_dict(attention.masks["a"].state_dict())
    assert torch.equal(attention("b", maps, pooled)[0][16], first[16])


def test_an_attended_feature_keeps_its_sign_and_does_not_grow() -> None:
    maps, pooled = inputs()
    for stride, found in stages("a")("a", maps, pooled)[0].items():
        share = found / maps[stride]
        assert share.min() > 0
        assert share.max() < 1


def test_a_tasks_images_do_not_move_the_statistics_that_another_is_normalised_by() -> None:
    attention = stages("a", "b").train()
    maps, pooled = inputs()
    before = {name: value.clone() for name, value in attention.state_dict().items()}
    attention("a", maps, pooled)
    moved = {name for name, value in attention.state_dict().items() if not torch.equal(value, before[name])}
    assert {"upward.16.1.running_mean_0", "upward.16.1.running_var_0"} < moved
    assert not any(".b." in name or name.endswith("_1") for name in moved)


def test_gradients_of_the_masks_are_those_of_finite_differences() -> None:
    attention = stages("a", pooled=True).double()
    names = [name for name, _ in attention.named_parameters()]
    maps, pooled = inputs()

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        state = dict(zip(names, values, strict=True))
        doubled = {stride: one.double() for stride, one in maps.items()}
        found, vector = torch.func.functional_call(attention, state, ("a", doubled, pooled.double()))
        return (*found.values(), vector)

    assert torch.autograd.gradcheck(run, tuple(attention.parameters()), fast_mode=True)


def test_strides_that_do_not_follow_from_each_other_are_refused() -> None:
    with pytest.raises(HarnessError, match=r"stride 12 is no multiple of 8"):
        AttentionStages({"a": False}, {8: 2, 12: 2}, 2, 1)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_vit"])
def test_every_mask_learns_and_tokens_pass(backbone: str) -> None:
    net = build(4, name=backbone, **({"options": {"img_size": 64}} if backbone == "test_vit" else {}))
    data = batches()
    data["s"] = replace(
        data["s"], images=data["s"].images[..., :32, :48], masks=data["s"].masks[:, :32, :48],  # type: ignore[attr-defined,call-arg]
        contents=torch.tensor([[32, 40], [20, 48]]),
    )  # fmt: skip
    losses = net(data)
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in net.shared.attention.named_parameters():  # type: ignore[union-attr]
        if not name.startswith("masks.v.16"):  # the VQA head looks at one level only
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    assert net.placeholders is not None
    assert net.placeholders.bank.tokens.grad is not None
    assert sum(net.parameters_by_part().values()) == sum(p.numel() for p in net.parameters())
    assert net.parameters_by_part()["attention"] > 0


def test_a_task_gives_the_same_whether_others_are_beside_it_or_not() -> None:
    net = build().eval()
    together = net(batches())
    for name, batch in batches().items():
        torch.testing.assert_close(net({name: batch})[name], together[name], rtol=1e-4, atol=1e-5)


def test_a_saved_network_predicts_the_same(tmp_path: Path) -> None:
    net, other = build(), build()
    net(batches())  # moves statistics
    net.eval(), other.eval()
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, tmp_path / "w.safetensors")
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    for name in ("c", "s"):
        assert torch.equal(net.predict(name, batches()[name]), other.predict(name, batches()[name]))


def test_a_classifier_takes_maps_of_a_frozen_backbone_whose_features_are_kept() -> None:
    assert build(frozen="all").reads("c") == "maps"
