"""Batches of images of different sizes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests_support import batches, document
from torch import Tensor

from harness.data.batches import SegmentationBatch
from harness.models.config import ModelConfig
from harness.models.features import padding_mask
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.models.placeholders import ExchangeSite


def build(name: str = "test_resnet", count: int = 4) -> MultiTaskNetwork:
    torch.manual_seed(0)
    config = document(count)["model"] | {"backbone": {"name": name}}
    specs = {"d": TaskSpec("detection", 3), "s": TaskSpec("segmentation", 4)}
    network = MultiTaskNetwork(ModelConfig.model_validate(config), specs)
    for module in network.modules():  # fresh sites write nothing
        if isinstance(module, ExchangeSite):
            torch.nn.init.normal_(module.up.weight, std=0.1)
    return network.eval()


def test_a_position_is_padding_when_it_begins_beyond_the_content() -> None:
    mask = padding_mask(torch.tensor([[32, 64], [33, 16], [64, 1]]), (64, 64), (4, 4))
    assert (~mask).sum(dim=(1, 2)).tolist() == [2 * 4, 3 * 1, 4 * 1]
    assert not mask[1, 2, 0]
    assert mask[1, 3, 0]
    assert mask[1, 0, 1]


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit"])
def test_what_lies_in_the_padding_has_no_influence(name: str) -> None:
    network = build(name)
    batch = replace(batches()["s"], contents=torch.tensor([[40, 64], [64, 24]]))
    other = batch.images.clone()
    other[0, :, 40:] = 7
    other[1, :, :, 24:] = 99
    assert torch.equal(network.predict("s", batch), network.predict("s", replace(batch, images=other)))
    assert not torch.equal(
        network.predict("s", batch), network.predict("s", replace(batch, images=other, contents=None))
    )


def test_placeholder_tokens_do_not_read_padding() -> None:
    network = build()
    read: list[Tensor] = []
    for module in network.modules():
        if isinstance(module, ExchangeSite):
            module.register_forward_pre_hook(lambda site, inputs: read.append(inputs[2]))
    batch = replace(batches()["s"], contents=torch.tensor([[40, 64], [64, 24]]))
    network.predict("s", batch)
    assert len(read) == 2
    for mask in read:
        side = int(mask.shape[1] ** 0.5)
        expected = padding_mask(torch.tensor([[40, 64], [64, 24]]), (64, 64), (side, side)).flatten(1)
        assert torch.equal(mask, expected)
        assert 0 < mask.sum() < mask.numel()


def test_boxes_are_clipped_to_the_content_and_scaled_by_it() -> None:
    network = build()
    network.heads["d"]._fcos.score_thresh = 0.0  # type: ignore[union-attr]
    batch = replace(
        batches()["d"], contents=torch.tensor([[32, 48], [64, 64]]), sizes=torch.tensor([[64, 96], [64, 64]])
    )
    first, second = network.predict("d", batch)
    assert len(first["boxes"])
    assert (first["boxes"][:, 2] <= 96).all()
    assert (first["boxes"][:, 3] <= 64).all()
    assert (first["boxes"][:, 3] > 40).any()  # scaled by two, or they would end at 32
    assert (second["boxes"] <= 64).all()


def test_padded_and_whole_images_go_through_the_network_together() -> None:
    network = build()
    both = {"d": batches()["d"], "s": replace(batches()["s"], contents=torch.tensor([[40, 64], [64, 24]]))}
    together = network(both)
    alone = {name: network({name: batch})[name] for name, batch in both.items()}
    for name, loss in together.items():
        torch.testing.assert_close(loss, alone[name])
    assert isinstance(both["s"], SegmentationBatch)
