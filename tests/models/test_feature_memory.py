"""Frozen backbones: features are computed once per image, and nothing changes by it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests_support import batches, document
from torch import Tensor, nn

from harness.models.config import ModelConfig
from harness.models.feature_memory import LIMIT
from harness.models.network import MultiTaskNetwork, TaskSpec

SPECS = {
    "c": TaskSpec("classification", 5),
    "d": TaskSpec("detection", 3),
    "s": TaskSpec("segmentation", 4),
    "v": TaskSpec("vqa", 7, words=10),
}


def network(
    name: str = "test_resnet", frozen: str = "all", limit: int = LIMIT, **placeholders: Any
) -> MultiTaskNetwork:
    model = document(4)["model"] | {"backbone": {"name": name, "frozen": frozen}}
    model["placeholders"] |= placeholders or {"stages": 0}
    torch.manual_seed(0)
    # The layout of runs; dropout is drawn in the order of the memory.
    net = MultiTaskNetwork(ModelConfig.model_validate(model), SPECS).to(memory_format=torch.channels_last)
    net.shared.trunk.backbone.remember(limit)  # type: ignore[union-attr]
    return net


def images_computed(net: MultiTaskNetwork) -> list[int]:
    """Counts the images that go through the first layer from now on."""
    counts: list[int] = []
    body: Any = net.shared.trunk.backbone.body  # type: ignore[union-attr]
    first = next(module for module in body.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_hook(lambda module, inputs, output: counts.append(len(output)))
    return counts


def trained(net: MultiTaskNetwork, steps: int = 4) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-2)
    history = []
    for step in range(steps):
        data = batches()
        data["c"] = replace(data["c"], images=data["c"].images.roll(step, 0), labels=data["c"].labels.roll(step))  # type: ignore[call-arg, attr-defined]
        losses = net(data)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        history.append({name: loss.item() for name, loss in losses.items()})
    return history, net.state_dict()


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit"])
def test_a_run_with_the_memory_equals_the_run_without_it_bit_for_bit(
    name: str,
) -> None:
    net = network(name)
    counts = images_computed(net)
    history, weights = trained(net)
    assert len(counts) == 1  # nine images, all in the first step
    net = network(name, limit=0)
    counts = images_computed(net)
    expected, other = trained(net)
    assert len(counts) == 4
    assert history == expected
    assert all(torch.equal(weights[key], other[key]) for key in weights)


def test_what_is_remembered_is_what_the_body_computes() -> None:
    net = network()
    data = batches()
    net(data)
    torch.manual_seed(1)  # of the heads' dropout
    remembered = net(data)
    net.shared.trunk.backbone._memory = None  # type: ignore[union-attr]
    torch.manual_seed(1)
    for name, loss in net(data).items():
        torch.testing.assert_close(remembered[name], loss)


def test_new_weights_are_noticed() -> None:
    net = network()
    data = batches()
    before = net(data)["c"]
    with torch.no_grad():
        for parameter in net.shared.trunk.backbone.body.parameters():  # type: ignore[union-attr]
            parameter.mul_(1.5)
    assert net(data)["c"] != before


def test_one_changed_pixel_is_another_image() -> None:
    net = network()
    batch = batches()["c"]
    before = net({"c": batch})["c"]
    other = batch.images.clone()
    other[0, 0, 0, 0] ^= 255
    assert net({"c": replace(batch, images=other)})["c"] != before


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"frozen": "none"}, "the weights move"),
        ({"stages": 2}, "tokens come into the body"),
        ({"placement": "input"}, "tokens come into the body"),
    ],
)
def test_it_is_not_used_where_features_change(changes: dict[str, Any], why: str) -> None:
    net = network(**changes)
    counts = images_computed(net)
    trained(net, 2)
    assert len(counts) == 2, why


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit"])
def test_predictions_remember_too_and_features_do_not_depend_on_the_other_images_of_the_batch(name: str) -> None:
    net, other = (network(name, limit=limit).eval() for limit in (LIMIT, 0))
    counts = images_computed(net)
    batch = batches()["c"]
    first, again = net.predict("c", batch), net.predict("c", batch)
    assert torch.equal(first, again)
    assert len(counts) == 1
    whole, alone = (one.shared.trunk.backbone for one in (net, other))  # type: ignore[union-attr]
    together = whole(batch.images)
    for row in range(3):
        single = alone(batch.images[row : row + 1])
        assert torch.equal(single.pooled[0], together.pooled[row])
        assert all(torch.equal(single.maps[stride][0], level[row]) for stride, level in together.maps.items())


def test_maps_are_computed_where_only_the_pooled_feature_was_remembered() -> None:
    net = network()
    counts = images_computed(net)
    data = batches()
    data["d"] = replace(data["d"], images=data["c"].images[:2])
    net({"c": data["c"]})
    net({"d": data["d"]})
    net({"d": data["d"], "c": data["c"]})
    assert len(counts) == 2


def test_costs_are_those_of_the_whole_network() -> None:
    net = network()
    net.shared.trunk.backbone._memory = None  # type: ignore[union-attr]
    counts = images_computed(net)
    net.eval()
    net.predict("c", batches()["c"])
    net.predict("c", batches()["c"])
    assert counts == [3, 3]
