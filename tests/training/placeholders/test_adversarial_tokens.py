"""Adversarial tokens: size and sign of the move, the gradient of both passes, and no other trace of the second."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from test_placeholder_objectives import ALL, SPECS, build, writing
from tests_support import batches
from torch import Tensor, nn

from harness.models.network import MultiTaskNetwork
from harness.training.balancing import BALANCING
from harness.training.balancing.base import Balancer, Setting, build_balancer
from harness.training.config import TrainingConfig
from harness.training.engine import Engine
from harness.training.placeholders.adversarial import adversarial_move, differentiate_with_adversary
from harness.training.placeholders.objectives.config import AdversarialConfig

CONFIG = AdversarialConfig(epsilon=0.5, weight=0.25)


def balancer(name: str = "equal") -> Balancer:
    config = TrainingConfig.model_validate({"steps": 1, "balancing": {"name": name}}).balancing
    return build_balancer(config, Setting({"c": 1.0, "d": 0.5, "s": 2.0, "v": 1.0}))


def step(
    network: MultiTaskNetwork, config: AdversarialConfig | None, method: Balancer | None = None, parts: int = 1
) -> tuple[dict[str, float], dict[str, Tensor]]:
    network.zero_grad()
    values = differentiate_with_adversary(config, network, Engine("32"), method or balancer(), batches(), parts)
    return values, {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def test_the_move_has_the_sign_of_the_gradient_and_a_share_of_the_root_mean_square() -> None:
    tokens, gradient = torch.tensor([[3.0, -4.0], [0.0, 5.0]]), torch.tensor([[1e-9, -2.0], [7.0, 0.0]])
    size = 0.1 * (50 / 4) ** 0.5
    torch.testing.assert_close(adversarial_move(tokens, gradient, 0.1), torch.tensor([[size, -size], [size, 0.0]]))


def test_the_gradient_is_that_of_the_loss_plus_the_weighted_loss_at_moved_tokens() -> None:
    network = writing(build({}, "test_convnext"))
    assert network.placeholders is not None
    tokens = network.placeholders.bank.tokens
    plain, first = step(network, None)
    before = tokens.detach().clone()
    move = 0.5 * before.square().mean().sqrt() * first["placeholders.bank.tokens"].sign()
    with torch.no_grad():
        tokens.add_(move)
    moved, second = step(network, None)
    with torch.no_grad():
        tokens.copy_(before)
    values, found = step(network, CONFIG)
    assert torch.equal(tokens, before)
    assert {name: values[name] for name in plain} == plain
    assert values["placeholder/adversarial"] == pytest.approx(0.25 * sum(moved.values()))
    assert sum(moved.values()) > sum(plain.values())  # the move goes up
    assert found.keys() == first.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, first[name] + 0.25 * second[name], msg=name)


@pytest.mark.parametrize("name", sorted(BALANCING))
def test_the_second_pass_leaves_nothing_behind_but_its_gradient(name: str) -> None:
    found = []
    for config in (None, CONFIG):
        network, method = writing(build(ALL if config else {})), balancer(name)
        for one in network.modules():
            if isinstance(one, nn.Dropout):
                one.p = 0.1
        torch.manual_seed(5)
        step(network, config, method)
        found.append((network, method.state_dict(), torch.rand(2)))
    (plain, state, stream), (other, again, after) = found
    assert torch.equal(stream, after)
    for key, buffer in plain.named_buffers():
        assert torch.equal(buffer, dict(other.named_buffers())[key]), key
    # Other objectives are on, but no balancer sees them.
    torch.testing.assert_close(_flat(again), _flat(state), rtol=1e-3, atol=1e-5)


def _flat(state: Any) -> list[Tensor]:
    """All tensors and numbers in a state."""
    if isinstance(state, Tensor):
        return [state.double()]
    if isinstance(state, (int, float)):
        return [torch.tensor(float(state), dtype=torch.float64)]
    if isinstance(state, dict):
        return [one for value in state.values() for one in _flat(value)]
    return [one for value in state for one in _flat(value)] if isinstance(state, (list, tuple)) else []


def test_both_passes_drop_the_same() -> None:
    network = build({}, "test_convnext")
    assert network.placeholders is not None
    nn.init.zeros_(network.placeholders.bank.tokens)  # the root mean square is 0, so nothing moves
    network.text["v"].register_forward_hook(lambda module, inputs, words: _dropped(words))
    values, _ = step(network, CONFIG)
    assert values["placeholder/adversarial"] == pytest.approx(0.25 * sum(values[name] for name in SPECS), rel=1e-6)


def _dropped(words: Any) -> Any:
    return replace(words, tokens=nn.functional.dropout(words.tokens, 0.5))


@pytest.mark.parametrize("name", ["equal", "uncertainty", "famo", "pcgrad", "gradnorm"])
def test_a_step_in_parts_has_the_gradient_of_the_whole_one(name: str) -> None:
    wanted = {key: ALL[key] for key in ("discriminator", "self_supervised", "auxiliary")}
    wanted["distilled"] = {"teacher": {"name": "test_convnext", "random": True}}
    network = writing(build(wanted, "test_convnext"))
    losses, expected = step(network, CONFIG, balancer(name))
    again, found = step(network, CONFIG, balancer(name), parts=2)
    assert again == pytest.approx(losses, rel=1e-4)
    assert found.keys() == expected.keys()
    largest = max(float(value.abs().max()) for value in expected.values())
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=2e-3, atol=1e-5 * largest, msg=key)
