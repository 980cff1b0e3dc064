"""Learning-rate schedule and weight-decay groups."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

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
