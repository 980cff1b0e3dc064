"""Hard sharing with fused pyramid levels."""

from __future__ import annotations

import pytest
import torch
from tests_support import batches, document

from harness.models.config import ModelConfig
from harness.models.features import FeatureShape
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.models.sharing.config import HardConfig
from harness.models.sharing.fusion import LevelAttention, LevelFusion

SPECS = {
    "c": TaskSpec("classification", 5),
    "d": TaskSpec("detection", 3),
    "s": TaskSpec("segmentation", 4),
    "v": TaskSpec("vqa", 7, words=10),
}


def build(names: str = "cdsv", **options: str) -> MultiTaskNetwork:
    section = document(4)["model"] | {"sharing": {"name": "hard", **options}}
    torch.manual_seed(0)
    return MultiTaskNetwork(ModelConfig.model_validate(section), {name: SPECS[name] for name in names})


def test_attention_weighs_levels_at_every_position() -> None:
    attention = LevelAttention(1, 2)
    levels = [torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[3.0, 4.0]]]])]
    torch.testing.assert_close(attention(levels), torch.tensor([[[[2.0, 2.0]]]]))  # it starts as the mean
    with torch.no_grad():
        attention.weight.copy_(torch.tensor([[3.0], [1.0]]).log())  # scores: x log 3, and 0
    # Where x is 1 and 3: weights 3/4 and 1/4. Where it is 0 and 4: 1/2 each.
    torch.testing.assert_close(attention(levels), torch.tensor([[[[1.5, 2.0]]]]))


def test_concatenated_levels_start_as_the_level_itself() -> None:
    fusion = LevelFusion(FeatureShape((8, 16), 2, 4), "concat")
    pyramid = {8: torch.randn(1, 2, 4, 6), 16: torch.randn(1, 2, 2, 3)}
    for stride, level in fusion(pyramid).items():
        torch.testing.assert_close(level, pyramid[stride])


@pytest.mark.parametrize("kind", ["concat", "attention"])
def test_gradients_of_a_fusion_are_those_of_finite_differences(kind: str) -> None:
    fusion = LevelFusion(FeatureShape((8, 16), 2, 4), kind).double()  # type: ignore[arg-type]
    torch.manual_seed(0)
    for one in fusion.parameters():
        torch.nn.init.normal_(one)
    levels = [torch.randn(1, 2, *size, dtype=torch.float64, requires_grad=True) for size in ((4, 6), (2, 3))]
    assert torch.autograd.gradcheck(lambda one, other: tuple(fusion({8: one, 16: other}).values()), levels)


@pytest.mark.parametrize("kind", ["concat", "attention"])
def test_all_tasks_learn_through_a_fusion(kind: str) -> None:
    net = build(fusion=kind)
    torch.stack(list(net(batches()).values())).sum().backward()
    assert net.parameters_by_part()["fusion"] > 0
    assert sum(net.parameters_by_part().values()) == sum(one.numel() for one in net.parameters())
    fused = net.shared.fusion.parameters()  # type: ignore[union-attr]
    assert all(one.grad is not None and one.grad.isfinite().all() for one in fused)


def test_a_fusion_that_is_off_or_read_by_no_head_is_not_made() -> None:
    assert not any("fusion" in key for key, _ in build().named_parameters())
    assert not any("fusion" in key for key, _ in build("c", fusion="concat").named_parameters())


def test_a_fusion_that_is_off_changes_no_fingerprint() -> None:
    assert HardConfig().model_dump(mode="json") == {"name": "hard"}
    assert HardConfig(fusion="concat").model_dump(mode="json") == {"name": "hard", "fusion": "concat"}
