"""Optimizer and learning-rate schedule."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import torch
from torch import nn

from harness.errors import HarnessError
from harness.models.backbones.base import ImageBackbone
from harness.models.placeholders import PlaceholderBank
from harness.training.config import OptimizerConfig, ScheduleConfig

# As timm, torchvision, open_clip and this package name position embeddings and learned tokens of a sequence.
_POSITIONS = re.compile(
    r"(pos_embed\w*|pos_embedding|positional_embedding|position_embedding\w*|positions|relative_position_bias_table"
    r"|rel_pos\w*|(cls|class|dist|reg|register)_token\w*|class_embedding|cls_emb|latent)$"
)


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW or SGD over the weights that are trained, in groups of equal weight decay and learning rate.

    Only matrices and kernels decay; vectors (biases, norms), embeddings of words and positions, class and register
    tokens, relative position biases and placeholder tokens do not, as is customary.

    With ``layer_decay`` γ a weight at depth i of a backbone whose greatest depth is L learns at γ^(L - i) of the rate,
    and everything outside the backbone at the rate itself (Bao 2022, BEiT). Each group's factor is its ``scale``, which
    whoever sets the learning rate must multiply it with.

    Raises:
        HarnessError: Nothing is left to train.
    """
    undecayed, scales = _undecayed(model), _scales(model, config.layer_decay)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            exempt = parameter.dim() <= 1 or id(parameter) in undecayed or _POSITIONS.search(name)
            key = (0.0 if exempt else config.weight_decay, scales.get(id(parameter), 1.0))
            groups.setdefault(key, []).append(parameter)
    if not groups:
        raise HarnessError("model: every weight is frozen, so there is nothing to train; set model.backbone.frozen")
    # In a fixed order: decayed before undecayed, the deepest layers first.
    ordered = sorted(groups.items(), key=lambda item: (-(item[0][0] > 0), -item[0][1]))
    settings = [
        {"params": members, "weight_decay": decay, "scale": scale, "lr": config.learning_rate * scale}
        for (decay, scale), members in ordered
    ]
    if config.name == "sgd":
        momentum = config.momentum
        # Not fused: that kernel fails where some weights have momentum and others, of tasks that rested, have none yet.
        # Torch chooses between one kernel for many weights (GPUs) and one after another, which is faster on CPUs.
        return torch.optim.SGD(settings, lr=config.learning_rate, momentum=momentum, nesterov=momentum > 0)
    return torch.optim.AdamW(settings, lr=config.learning_rate, fused=True)


def _undecayed(model: nn.Module) -> set[int]:
    """Ids of weights that their modules declare to be no matrices in spirit."""
    found = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for module in model.modules():
        if isinstance(module, PlaceholderBank):
            found |= {id(parameter) for parameter in module.parameters()}
        if isinstance(module, ImageBackbone):
            declared: Iterable[str] = getattr(module.body, "no_weight_decay", set)()
            found |= {id(p) for name, p in module.body.named_parameters() if name in declared}
    return found


def _scales(model: nn.Module, decay: float) -> dict[int, float]:
    """Factor of the learning rate by id of a backbone's weight."""
    scales: dict[int, float] = {}
    for module in model.modules():
        if isinstance(module, ImageBackbone) and decay < 1:
            depth, greatest = module.layers()
            scales |= {id(p): decay ** (greatest - depth[name]) for name, p in module.body.named_parameters()}
    return scales


def learning_rate(config: ScheduleConfig, peak: float, step: int, steps: int) -> float:
    """Learning rate of a step: linear warm-up, then the schedule's shape.

    With t the share of the steps after warm-up that are done: ``cosine`` is (1 + cos πt) / 2 of the peak (Loshchilov
    2017), ``poly`` (1 - t)^power (Liu 2015, ParseNet; Chen 2017, DeepLab). ``step`` multiplies by its factor at each
    milestone, counted from the first step on (Girshick 2018, Detectron). The values are those of torch's schedulers;
    a pure function of the step has no state to lose.

    Args:
        config: Shape.
        peak: Largest value.
        step: From 0 to steps - 1.
        steps: Length of the run.
    """
    warmup = config.warmup * steps
    if step < warmup:
        return peak * (step + 1) / math.ceil(warmup)
    if config.name == "constant":
        return peak
    if config.name == "step":
        return peak * config.factor ** sum(step >= round(share * steps) for share in config.milestones)
    progress = (step - warmup) / max(1.0, steps - warmup)
    if config.name == "poly":
        return peak * max(0.0, 1 - progress) ** config.power
    return peak * 0.5 * (1 + math.cos(math.pi * progress))
