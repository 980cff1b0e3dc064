"""Learning-rate schedule and weight-decay groups."""

from __future__ import annotations

import math

import pytest
import torch
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
