"""Learning-rate schedule and weight-decay groups."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from harness.errors import HarnessError
from harness.models.backbones.open_clip_models import OpenClipBackbone
from harness.models.backbones.timm_models import TimmBackbone
from harness.models.backbones.torchvision_models import TorchvisionBackbone
from harness.models.config import BackboneConfig, PlaceholderConfig
from harness.models.placeholders import PlaceholderBank
from harness.training.config import OptimizerConfig, ScheduleConfig
from harness.training.optimization import build_optimizer, learning_rate


def test_cosine_warms_up_linearly_and_ends_near_zero() -> None:
    config = ScheduleConfig(warmup=0.25)
    rates = [learning_rate(config, 8.0, step, 16) for step in range(16)]
    assert rates[:4] == [2.0, 4.0, 6.0, 8.0]
    assert rates[4] == 8.0
    assert rates[10] == pytest.approx(8 * 0.5 * (1 + math.cos(math.pi * 6 / 12)))
    assert rates == sorted(rates[:4]) + sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.2


def test_constant_stays_at_the_peak() -> None:
    config = ScheduleConfig(name="constant", warmup=0.0)
    assert {learning_rate(config, 0.5, step, 10) for step in range(10)} == {0.5}


STEPS = 40


def torch_rates(config: ScheduleConfig) -> list[float]:
    """What torch's own schedulers give, one after another: linear warm-up, then the shape."""
    warmup = round(config.warmup * STEPS)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    schedulers = torch.optim.lr_scheduler
    shapes: dict[str, Any] = {
        "cosine": lambda: schedulers.CosineAnnealingLR(optimizer, STEPS - warmup),
        "poly": lambda: schedulers.PolynomialLR(optimizer, STEPS - warmup, config.power),
        "constant": lambda: schedulers.ConstantLR(optimizer, 1.0),
        "step": lambda: schedulers.MultiStepLR(  # counted from the end of warm-up
            optimizer, [round(share * STEPS) - warmup for share in config.milestones], config.factor
        ),
    }
    shape = shapes[config.name]()
    if warmup:
        rising = schedulers.LinearLR(optimizer, 1 / warmup, 1.0, warmup - 1)
        shape = schedulers.SequentialLR(optimizer, [rising, shape], [warmup])
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        shape.step()
    return rates


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step")
@pytest.mark.parametrize("warmup", [0.0, 0.25])
@pytest.mark.parametrize(
    "shape",
    [
        {"name": "cosine"},
        {"name": "step"},
        {"name": "step", "milestones": [0.3, 0.7, 0.9], "factor": 0.5},
        {"name": "poly"},
        {"name": "poly", "power": 2.0},
        {"name": "constant"},
    ],
)
def test_every_schedule_is_that_of_torch(shape: dict[str, Any], warmup: float) -> None:
    config = ScheduleConfig.model_validate(shape | {"warmup": warmup})
    rates = [learning_rate(config, 0.5, step, STEPS) for step in range(STEPS)]
    assert rates == pytest.approx(torch_rates(config), rel=1e-9)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"name": "cosine", "power": 2.0}, "power: only schedule {name: poly} has it, not cosine"),
        ({"name": "poly", "milestones": [0.5]}, "milestones: only schedule {name: step} has it, not poly"),
        ({"name": "step", "milestones": [0.7, 0.3]}, "must ascend"),
        ({"name": "step", "milestones": [700]}, "less than 1"),
        ({"name": "step", "milestones": []}, "at least 1"),
    ],
)
def test_a_schedule_with_what_it_does_not_use_is_refused(schedule: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        ScheduleConfig.model_validate(schedule)


def test_biases_norms_embeddings_and_tokens_are_not_decayed() -> None:
    model = nn.ModuleDict(
        {"linear": nn.Linear(2, 3), "norm": nn.LayerNorm(3), "words": nn.Embedding(4, 2), "bank": PlaceholderBank(2, 3)}
    )
    decayed, plain = build_optimizer(model, OptimizerConfig(weight_decay=0.1)).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert [id(p) for p in decayed["params"]] == [id(model["linear"].weight)]
    assert len(plain["params"]) == 5


def test_sgd_has_nesterov_momentum_only_with_momentum() -> None:
    model = nn.Linear(1, 1)
    assert build_optimizer(model, OptimizerConfig(name="sgd")).defaults["nesterov"]
    optimizer = build_optimizer(model, OptimizerConfig(name="sgd", momentum=0.0))
    assert isinstance(optimizer, torch.optim.SGD)
    assert not optimizer.defaults["nesterov"]


def test_what_is_frozen_is_not_in_the_optimizer_and_nothing_to_train_is_an_error() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(3, 3)})
    model["a"].requires_grad_(False)
    parameters = [p for group in build_optimizer(model, OptimizerConfig()).param_groups for p in group["params"]]
    assert {id(p) for p in parameters} == {id(p) for p in model["b"].parameters()}
    with pytest.raises(HarnessError, match="every weight is frozen"):
        build_optimizer(model.requires_grad_(False), OptimizerConfig())


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_layer_decay_slows_each_stage_by_the_same_factor_and_spares_heads(name: str) -> None:
    backbone = TimmBackbone(BackboneConfig(name=name), (16,), PlaceholderConfig(count=0))
    model = nn.ModuleDict({"backbone": backbone, "head": nn.Linear(backbone.pooled_width, 2)})
    optimizer = build_optimizer(model, OptimizerConfig(layer_decay=0.5, learning_rate=0.1, weight_decay=0.1))
    scale = {id(p): group["scale"] for group in optimizer.param_groups for p in group["params"]}
    assert len(scale) == len(list(model.parameters()))
    depth, greatest = backbone.layers()
    for key, parameter in backbone.body.named_parameters():
        assert scale[id(parameter)] == 0.5 ** (greatest - depth[key])
    assert all(scale[id(p)] == 1 for p in model["head"].parameters())
    assert all(group["lr"] == 0.1 * group["scale"] for group in optimizer.param_groups)
    first = {"test_vit": "patch_embed.proj.weight", "test_resnet": "conv1.0.weight"}[name]
    assert scale[id(backbone.body.get_parameter(first))] == 0.5**greatest
    last = {"test_vit": f"blocks.{greatest - 2}.attn.qkv.weight", "test_resnet": "layer4.0.conv1.weight"}[name]
    assert scale[id(backbone.body.get_parameter(last))] == 0.5


@pytest.mark.parametrize("library", ["timm", "open_clip", "torchvision"])
def test_positions_and_class_tokens_of_every_library_are_not_decayed(library: str) -> None:
    class_path = {"timm": TimmBackbone, "open_clip": OpenClipBackbone, "torchvision": TorchvisionBackbone}
    name, options = {
        "timm": ("test_vit", {}),
        "open_clip": ("ViT-S-16", {"embed_dim": 8, "vision_cfg": {"layers": 1, "width": 64, "head_width": 32}}),
        "torchvision": ("swin_t", {}),
    }[library]
    config = BackboneConfig.model_validate({"library": library, "name": name, "options": options})
    model = class_path[library](config, (16,), PlaceholderConfig(count=0))
    groups = build_optimizer(model, OptimizerConfig(weight_decay=0.1)).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    names = {key for key, p in model.body.named_parameters() if id(p) in decayed}
    assert names
    assert all(key.endswith("weight") or key == "proj" for key in names)
    assert not any("norm" in key or "position" in key for key in names)
