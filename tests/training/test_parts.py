"""A step in parts: its losses and gradient are those of the whole batches, whatever is uneven between the parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests_support import batches, document
from torch import Tensor, nn

from harness.data.batches import Batch, DetectionBatch, SegmentationBatch, VqaBatch
from harness.data.collation import collate, enlarge
from harness.models.backbones.timm_models import TimmBackbone
from harness.models.config import BackboneConfig, ModelConfig, PlaceholderConfig
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.models.normalization import synchronize
from harness.training.balancing import BALANCING
from harness.training.balancing.base import Setting, build_balancer
from harness.training.config import TrainingConfig
from harness.training.engine import Engine
from harness.training.parts import Part, differentiate, split

SPECS = {
    "c": TaskSpec("classification", 5),
    "d": TaskSpec("detection", 3),
    "s": TaskSpec("segmentation", 4),
    "v": TaskSpec("vqa", 7, words=10),
}


def network(**heads: Any) -> MultiTaskNetwork:
    """Without batch norm and dropout, which make a batch more than its images."""
    model = document()["model"]
    model["backbone"] = {"name": "test_convnext"}
    model["heads"]["segmentation"] = {"name": "upernet", "channels": 16, "dropout": 0}
    model["heads"] |= heads
    torch.manual_seed(0)
    return MultiTaskNetwork(ModelConfig.model_validate(model), SPECS)


def uneven(size: int = 64) -> dict[str, Batch]:
    """Two parts that differ in everything: labelled pixels, boxes (the second has none), questions, images."""
    found: dict[str, Any] = batches()
    masks = found["s"].masks.clone()
    masks[0, 5:] = 255
    found["s"] = replace(found["s"], masks=masks)
    if size != 64:
        found["d"] = replace(found["d"], images=found["d"].images[..., :size, :])
    return found


def gradient(net: MultiTaskNetwork, parts: list[Part]) -> tuple[dict[str, float], dict[str, Tensor]]:
    net.zero_grad()
    total = dict.fromkeys(SPECS, 0.0)
    for part in parts:
        losses = net(*part)
        torch.stack(list(losses.values())).sum().backward()
        total = {name: total[name] + loss.item() for name, loss in losses.items()}
    return total, {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("size", [64, 59], ids=["strides divide the images", "strides do not"])
def test_losses_and_gradients_of_two_parts_are_those_of_the_whole_batches(size: int) -> None:
    net, engine = network(), Engine("32")
    whole = split(net, engine, uneven(size), 1)
    halves = split(net, engine, uneven(size), 2)
    assert (len(whole), len(halves)) == (1, 2)
    losses, expected = gradient(net, whole)
    again, found = gradient(net, halves)
    assert again == pytest.approx(losses, rel=1e-5)
    assert found.keys() == expected.keys()
    largest = max(float(value.abs().max()) for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-6 * largest, msg=name)


@pytest.mark.parametrize("task", ["d", "s", "v"])
def test_the_plain_mean_of_the_parts_losses_is_another_number(task: str) -> None:
    net, engine = network(), Engine("32")
    whole = net(uneven())[task].item()
    plain = sum(net(part.batches)[task].item() / 2 for part in split(net, engine, uneven(), 2))
    assert abs(plain - whole) > 5e-4 * whole  # rounding is a thousandth of that


@pytest.mark.parametrize("name", sorted(BALANCING))
def test_a_balanced_step_in_parts_has_the_gradient_of_the_whole_one(name: str) -> None:
    net, engine = network(), Engine("32")
    config = TrainingConfig.model_validate({"steps": 1, "balancing": {"name": name}}).balancing
    found = []
    for accumulation in (1, 2):
        balancer = build_balancer(config, Setting({"c": 1.0, "d": 0.5, "s": 2.0, "v": 1.0}))
        with torch.no_grad():
            for parameter in balancer.parameters():
                parameter.copy_(torch.linspace(-0.5, 0.5, parameter.numel()).view_as(parameter))
        both = nn.ModuleList([net, balancer])
        both.zero_grad()
        values = differentiate(net, engine, balancer, uneven(), accumulation)
        found.append((values, {key: p.grad.clone() for key, p in both.named_parameters() if p.grad is not None}))
    (losses, expected), (again, gradients) = found
    assert again == pytest.approx(losses, rel=1e-5)
    assert gradients.keys() == expected.keys() == {key for key, _ in both.named_parameters()}
    largest = max(float(value.abs().max()) for value in expected.values())
    for key, value in expected.items():
        torch.testing.assert_close(gradients[key], value, rtol=1e-3, atol=1e-6 * largest, msg=key)


def test_a_batch_without_a_labelled_pixel_or_box_has_the_loss_of_a_whole_batch() -> None:
    net, engine = network(), Engine("32")
    empty: dict[str, Any] = uneven()
    boxes = tuple(one[:0] for one in empty["d"].boxes)
    empty["d"] = replace(empty["d"], boxes=boxes, labels=tuple(one[:0] for one in empty["d"].labels))
    empty["s"] = replace(empty["s"], masks=torch.full_like(empty["s"].masks, 255))
    losses, _ = gradient(net, split(net, engine, empty, 1))
    assert losses["s"] == 0
    assert losses["d"] > 0
    assert gradient(net, split(net, engine, empty, 2))[0] == pytest.approx(losses, rel=1e-5)


def test_parts_of_faster_rcnns_loss_weigh_by_their_images() -> None:
    net, engine = network(detection={"name": "faster_rcnn", "width": 32}), Engine("32")
    found: dict[str, Any] = uneven()
    three = [found["d"].rows(row, row + 1) for row in (0, 1, 0)]
    found["d"] = replace(
        found["d"],
        ids=("a", "b", "c"),
        images=torch.cat([one.images for one in three]),
        sizes=torch.cat([one.sizes for one in three]),
        boxes=tuple(one.boxes[0] for one in three),
        labels=tuple(one.labels[0] for one in three),
    )
    shares = [part.shares["d"] for part in split(net, engine, found, 2) if part.shares is not None]
    assert shares == [pytest.approx(1 / 3), pytest.approx(2 / 3)]


def test_a_part_of_a_vqa_batch_has_the_questions_about_its_images() -> None:
    whole: Any = batches()["v"]
    whole = replace(whole, texts=("p", "q", "r"), contents=torch.tensor([[64, 64], [32, 64]]), skipped=("gone",))
    first, second = whole.rows(0, 1), whole.rows(1, 2)
    assert isinstance(second, VqaBatch)
    assert (first.texts, second.texts) == (("p", "q"), ("r",))
    assert second.image_index.tolist() == [0]
    assert second.question_ids.tolist() == [2]
    assert second.contents is not None
    assert second.contents.tolist() == [[32, 64]]
    assert torch.equal(second.images, whole.images[1:])
    assert torch.equal(second.targets, whole.targets[2:])


@pytest.mark.parametrize("kind", ["mask", "boxes"])
def test_an_enlarged_batch_is_one_that_had_a_larger_image_among_its_own(kind: str) -> None:
    def item(height: int, width: int) -> dict[str, Any]:
        found = {"id": str(height), "size": (height, width), "canvas": (32, 32)}
        found["image"] = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
        if kind == "mask":
            return found | {"mask": torch.randint(0, 4, (height, width))}
        return found | {"boxes": torch.tensor([[1.0, 1, 9, 9]]), "labels": torch.tensor([1])}

    small, large = [item(32, 64), item(32, 64)], item(96, 40)
    expected = collate([*small, large]).rows(0, 2)
    found = enlarge(collate(small), (96, 64))
    assert isinstance(found, SegmentationBatch if kind == "mask" else DetectionBatch)
    assert torch.equal(found.images, expected.images)
    assert found.contents is not None
    assert torch.equal(found.contents, expected.contents)  # type: ignore[arg-type]
    if isinstance(found, SegmentationBatch) and isinstance(expected, SegmentationBatch):
        assert torch.equal(found.masks, expected.masks)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_synchronized_batch_norms_keep_weights_hooks_and_what_they_compute(name: str) -> None:
    from timm.layers.norm_act import BatchNormAct2d

    torch.manual_seed(0)
    net = TimmBackbone(BackboneConfig(name=name), (8, 16), PlaceholderConfig(count=0)).eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    before, keys = net(images), list(net.state_dict())
    norms = [one for one in net.modules() if isinstance(one, nn.BatchNorm2d)]
    acting = [one for one in norms if isinstance(one, BatchNormAct2d)]
    parameters = {id(parameter) for parameter in net.parameters()}
    synchronize(net)
    assert all(isinstance(one, nn.SyncBatchNorm) for one in norms)
    assert all(hasattr(one, "act") for one in acting)
    assert {id(parameter) for parameter in net.parameters()} == parameters
    assert list(net.state_dict()) == keys
    after = net(images)
    assert before.maps.keys() == after.maps.keys() == {8, 16}
    for stride, level in before.maps.items():
        assert torch.equal(level, after.maps[stride])
