"""Optimizer and learning-rate schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from harness.training.config import OptimizerConfig, ScheduleConfig


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW or SGD with weight decay on matrices and kernels only.

    Vectors (biases, norms), embeddings of words and positions, and placeholder tokens are not decayed, as is
    customary.
    """
    free = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        exempt = parameter.dim() <= 1 or id(parameter) in free or name.endswith(("positions", "bank.tokens"))
        (plain if exempt else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=config.momentum > 0)
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def learning_rate(config: ScheduleConfig, peak: float, step: int, steps: int) -> float:
    """Learning rate of a step: linear warm-up, then half a cosine to 0 (Loshchilov 2017), or constant.

    A pure function of the step, so there is no scheduler state to lose.

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
    progress = (step - warmup) / max(1.0, steps - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))
