"""How the tasks' losses become one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from harness.training.balancing.base import Balancer, Setting, build_balancer
from harness.training.config import OptimizerConfig, TrainingConfig
from harness.training.optimization import build_optimizer

WEIGHTS = {"a": 1.0, "b": 3.0}
LOSSES = {"a": torch.tensor(2.0), "b": torch.tensor(0.5)}


def balancer(name: str) -> Balancer:
    config = TrainingConfig.model_validate({"steps": 1, "balancing": {"name": name}}).balancing
    return build_balancer(config, Setting(WEIGHTS))


@pytest.mark.parametrize(("name", "total"), [("equal", 2.5), ("manual", 3.5), ("uncertainty", 2.5)])
def test_the_total_at_the_start(name: str, total: float) -> None:
    assert balancer(name)(LOSSES).item() == pytest.approx(total)


def test_uncertainty_weighs_by_the_learned_variance_and_pays_half_its_logarithm() -> None:
    method = balancer("uncertainty")
    s = method.log_variance
    with torch.no_grad():
        s["a"].fill_(math.log(4.0))
        s["b"].fill_(-1.0)
    # exp(-s) L + s / 2, for a variance of 4: 2 / 4 + log 2. (Half the factor is the form for squared errors.)
    expected = 2 / 4 + math.log(2) + 0.5 * math.e - 0.5
    total = method(LOSSES)
    assert total.item() == pytest.approx(expected, rel=1e-6)
    total.backward()
    assert [s[task].grad.item() for task in "ab"] == pytest.approx([-2 / 4 + 0.5, -0.5 * math.e + 0.5], rel=1e-6)


def test_variances_settle_where_each_is_twice_its_loss() -> None:
    method = balancer("uncertainty")
    optimizer = torch.optim.SGD(method.parameters(), lr=0.2)
    for _ in range(300):
        optimizer.zero_grad()
        method(LOSSES).backward()
        optimizer.step()
    assert [s.exp().item() for s in method.log_variance.values()] == pytest.approx([4.0, 1.0], rel=1e-4)


def test_a_task_that_rests_in_a_step_has_no_part_in_it() -> None:
    method = balancer("uncertainty")
    method({"b": LOSSES["b"]}).backward()
    assert method.log_variance["a"].grad is None
    assert method.log_variance["b"].grad.item() == 0.0  # -0.5 + 0.5
    method({"a": LOSSES["a"]}).backward()
    assert [s.grad.item() for s in method.log_variance.values()] == [-1.5, 0.0]


@pytest.mark.parametrize("name", ["uncertainty", "imtl_l"])
@pytest.mark.parametrize("optimizer", [{"name": "sgd"}, {"name": "adamw"}], ids=str)
def test_what_a_task_has_learned_stays_while_it_rests_whatever_momentum_it_has(
    name: str, optimizer: dict[str, Any]
) -> None:
    method = balancer(name)
    trainable = torch.nn.ModuleDict({"network": torch.nn.Linear(2, 2), "balancer": method})
    steps = build_optimizer(trainable, OptimizerConfig.model_validate(optimizer | {"learning_rate": 0.01}))
    learned = []
    for task in "aaabbb":
        steps.zero_grad(set_to_none=True)
        method({task: torch.tensor(3.0)}).backward()
        steps.step()
        learned.append([value.item() for value in method.parameters()])
    assert learned[2][0] != 0
    assert [a for a, _ in learned[3:]] == [learned[2][0]] * 3
    assert [b for _, b in learned[3:]] == [a for a, _ in learned[:3]]  # b learns as a did, as if nobody had before


def test_variances_have_no_weight_decay() -> None:
    trainable = torch.nn.ModuleDict({"network": torch.nn.Linear(2, 2), "balancer": balancer("uncertainty")})
    optimizer = build_optimizer(trainable, OptimizerConfig(weight_decay=0.1))
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {decays[id(s)] for s in trainable["balancer"].parameters()} == {0.0}
    assert 0.1 in decays.values()
