"""The network: saving, batch-norm statistics per task, grouping of tasks, question-only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests_support import batches, document

from harness.errors import HarnessError
from harness.models.config import ModelConfig
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.training.windows import train_ids

SPECS = {
    "c": TaskSpec("classification", 5),
    "d": TaskSpec("detection", 3),
    "s": TaskSpec("segmentation", 4),
    "v": TaskSpec("vqa", 7, words=10),
}


def build(count: int = 4, specs: dict[str, TaskSpec] = SPECS, **changes: Any) -> MultiTaskNetwork:
    model = document(count)["model"]
    for path, value in changes.items():
        section, key = path.split("__")
        target = model["heads"] if section == "heads" else model[section]
        target[key] = {**target.get(key, {}), **value} if isinstance(value, dict) else value
    torch.manual_seed(0)
    return MultiTaskNetwork(ModelConfig.model_validate(model), specs)


@pytest.mark.parametrize("name", ["train", "training", "values", "half", "penalty"])
def test_a_data_set_whose_name_means_something_else_in_a_network_is_refused(name: str) -> None:
    with pytest.raises(HarnessError, match=f"called '{name}'.*give its card another name"):
        build(specs={name: SPECS["c"], "d": SPECS["d"]})


@pytest.mark.parametrize("batch_norm", ["shared", "per_task"])
def test_weights_survive_a_round_trip_through_safetensors(tmp_path: Path, batch_norm: str) -> None:
    net = build(backbone__batch_norm=batch_norm)
    net(batches())  # moves the batch-norm statistics
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, tmp_path / "w.safetensors")
    torch.manual_seed(9)
    other = MultiTaskNetwork(ModelConfig.model_validate(_model(batch_norm)), SPECS)
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    net.eval(), other.eval()
    for name, batch in batches().items():
        a, b = net.predict(name, batch), other.predict(name, batch)
        if name == "d":
            assert all(torch.equal(x[key], y[key]) for x, y in zip(a, b, strict=True) for key in x)
        else:
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def _model(batch_norm: str) -> dict[str, Any]:
    model: dict[str, Any] = document(4)["model"]
    model["backbone"]["batch_norm"] = batch_norm
    return model


def test_each_task_has_batch_norm_statistics_of_its_own_when_asked() -> None:
    net = build(0, backbone__batch_norm="per_task")
    data = batches()
    dark = replace(data["c"], images=data["c"].images // 16)
    net({"c": dark, "s": data["s"]})
    state = net.state_dict()
    means = {index: state[f"shared.trunk.backbone.body.conv1.1.running_mean_{index}"] for index in range(4)}
    assert not torch.equal(means[0], means[2])  # classification and segmentation saw other images
    assert torch.equal(means[1], means[3])  # detection and VQA saw none
    assert not any(name.endswith("running_mean") and ".trunk." in name for name in state)


def test_with_statistics_of_its_own_a_task_does_not_depend_on_the_others() -> None:
    data = batches()
    alone, together = build(0, backbone__batch_norm="per_task"), build(0, backbone__batch_norm="per_task")
    losses = alone({"c": data["c"]}), together({"c": data["c"], "v": data["v"]})
    assert torch.equal(losses[0]["c"], losses[1]["c"])
    shared = build(0)({"c": data["c"], "v": data["v"]})
    assert not torch.equal(losses[0]["c"], shared["c"])


def test_tasks_with_images_of_other_sizes_are_encoded_apart() -> None:
    data = batches()
    small = replace(data["c"], images=data["c"].images[:, :, :32, :32])
    net = build().eval()
    torch.testing.assert_close(net({"c": small, "d": data["d"]})["c"], net({"c": small})["c"], rtol=1e-5, atol=1e-6)


def test_the_memory_layout_of_a_batch_changes_no_bit() -> None:
    data = batches()
    turned = {
        name: replace(batch, images=batch.images.contiguous(memory_format=torch.channels_last))
        for name, batch in data.items()
    }
    losses, again = build()(data), build()(turned)
    assert all(torch.equal(losses[name], again[name]) for name in losses)


def test_in_evaluation_a_task_gives_the_same_whether_others_are_beside_it_or_not() -> None:
    net = build().eval()
    together = net(batches())
    for name, batch in batches().items():
        torch.testing.assert_close(net({name: batch})[name], together[name], rtol=1e-5, atol=1e-6)


def test_a_question_only_network_has_no_backbone_and_does_not_see_the_image() -> None:
    net = build(0, {"v": SPECS["v"]}, heads__vqa={"question_only": True}).eval()
    assert net.shared is None
    batch = batches()["v"]
    changed = replace(batch, images=batch.images.flip(0))
    assert torch.equal(net.predict("v", batch), net.predict("v", changed))


def test_a_looking_network_sees_the_image_that_the_question_is_about() -> None:
    net = build(0, {"v": SPECS["v"]}).eval()
    batch = batches()["v"]
    changed = replace(batch, images=torch.stack([batch.images[0], batch.images[1].flip(-1)]))
    before, after = net.predict("v", batch), net.predict("v", changed)
    assert torch.equal(before[:2], after[:2])  # questions about image 0
    assert not torch.allclose(before[2], after[2])


def test_detections_are_in_pixels_of_the_original_image() -> None:
    net = build(0).eval()
    batch = batches()["d"]
    found = net.predict("d", replace(batch, sizes=torch.tensor([[64, 64], [64, 64]])))
    scaled = net.predict("d", replace(batch, sizes=torch.tensor([[32, 128], [32, 128]])))
    assert len(found[0]["boxes"]) > 0
    torch.testing.assert_close(scaled[0]["boxes"], found[0]["boxes"] * torch.tensor([2, 0.5, 2, 0.5]))
    assert found[0]["labels"].min() >= 0
    assert found[0]["labels"].max() < 3


def test_segmentations_have_the_sizes_of_the_original_images() -> None:
    net = build(0).eval()
    sizes = torch.tensor([[10, 31], [200, 3]])
    masks = train_ids(net.predict("s", batches()["s"]), sizes, None)
    assert [tuple(mask.shape) for mask in masks] == [(10, 31), (200, 3)]
    assert all(mask.dtype == torch.uint8 and mask.max() < 4 for mask in masks)


def test_a_batch_whose_pixels_are_all_ignored_has_no_loss_and_no_nan() -> None:
    net = build(0)
    batch = batches()["s"]
    assert net({"s": replace(batch, masks=torch.full_like(batch.masks, 255))})["s"] == 0


def test_every_parameter_belongs_to_one_part() -> None:
    model = document(4)["model"]
    model["backbone"]["frozen"] = "all"
    net = MultiTaskNetwork(ModelConfig.model_validate(model), SPECS)
    parts = net.parameters_by_part()
    assert list(parts) == ["backbone", "neck", "text", "placeholders", "head c", "head d", "head s", "head v"]
    assert sum(parts.values()) == sum(parameter.numel() for parameter in net.parameters())
    assert net.parameters_by_part(trainable=True) == parts | {"backbone": 0}


def test_a_misspelt_head_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="name must be fcos or faster_rcnn"):
        build(heads__detection={"name": "faster-rcnn"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads__classification": {"name": "zero_shot"}}, "take a backbone of library open_clip"),
        ({"text__library": "open_clip", "text__width": 16}, "text.open_clip.width"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_strides_that_a_backbone_lacks_are_refused_with_those_it_has() -> None:
    with pytest.raises(HarnessError, match=r"test_resnet has no features at stride 64; it has \[.*32\]"):
        build(neck__strides=[8, 64])


def test_pretrained_weights_without_a_network_are_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the variable is read at import
    with pytest.raises(HarnessError, match=r"model\.backbone\.pretrained: the weights of 'resnet18' could not"):
        build(backbone__name="resnet18", backbone__pretrained=True)


def _of_one(held: Any, images: torch.Tensor) -> Any:
    """A batch with two of these images."""
    return replace(held, images=images, ids=("0", "1"), sizes=torch.tensor([[48, 80]] * 2))


def _on_the_same_images(copies: bool) -> dict[str, Any]:
    found = batches()
    images = found["d"].images
    found["c"] = replace(found["c"], labels=torch.tensor([0, 4]))
    return {name: _of_one(batch, images.clone() if copies else images) for name, batch in found.items()}


@pytest.mark.parametrize("count", [0, 4])
def test_images_that_several_tasks_hold_are_encoded_once_with_the_losses_and_gradients_of_copies(count: int) -> None:
    found = []
    for copies in (True, False):
        net = build(count)
        encoded: list[int] = []
        net.shared.trunk.backbone.register_forward_pre_hook(lambda _, inputs, seen=encoded: seen.append(len(inputs[0])))  # type: ignore[union-attr]
        losses = net(_on_the_same_images(copies))
        torch.stack(list(losses.values())).sum().backward()
        assert encoded == [8 if copies else 2]
        found.append((losses, {name: p.grad for name, p in net.named_parameters() if p.grad is not None}))
    (losses, gradients), (others, shared) = found
    assert gradients.keys() == shared.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(others[name], loss, rtol=1e-4, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(shared[name], gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("change", [{"backbone__batch_norm": "per_task"}, {"placeholders__sharing": "per_task"}])
def test_tasks_with_statistics_or_tokens_of_their_own_encode_images_on_their_own(change: dict[str, str]) -> None:
    net = build(4, **change)
    encoded: list[int] = []
    net.shared.trunk.backbone.register_forward_pre_hook(lambda _, inputs: encoded.append(len(inputs[0])))  # type: ignore[union-attr]
    net(_on_the_same_images(copies=False))
    assert sum(encoded) == 8
