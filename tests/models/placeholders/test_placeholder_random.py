"""Random tokens: drawn once, or anew at every step of training."""

from __future__ import annotations

from typing import Any

import torch
from placeholder_support import as_after_some_steps, losses, network, tokens_of
from tests_support import batches

from harness.models.placeholders import PlaceholderBank

RESAMPLED = {"kind": "random", "random": "resampled"}


def bank(levels: int = 1) -> PlaceholderBank:
    torch.manual_seed(5)
    return PlaceholderBank(64, 16, levels=levels, resampled=True)


def test_a_draw_is_a_function_of_the_seed_and_the_step_alone() -> None:
    one, other = bank(), bank()
    for step in (0, 1, 2, 7):
        one.advance(step)
    torch.manual_seed(99)  # as in another process
    state = torch.get_rng_state()
    other.advance(7)
    assert torch.equal(torch.get_rng_state(), state)  # and no other random stream moves
    assert torch.equal(one(2), other(2))
    other.advance(8)
    assert not torch.equal(one(2), other(2))
    torch.manual_seed(6)
    another = PlaceholderBank(64, 16, resampled=True)
    another.advance(7)
    assert not torch.equal(one(2), another(2))


def test_draws_have_the_spread_of_the_start_and_mean_zero() -> None:
    found = bank(levels=3)
    draws = []
    for step in range(20):
        found.advance(step)
        draws.append(torch.stack([found(1, level) for level in range(3)]))
    drawn = torch.stack(draws)
    torch.testing.assert_close(drawn.std(), torch.tensor(0.02), rtol=0.02, atol=0)
    assert drawn.mean().abs() < 4 * 0.02 / drawn.numel() ** 0.5
    assert not torch.equal(drawn[0, 0], drawn[0, 1])


def test_evaluation_takes_the_first_draw_whatever_training_drew() -> None:
    net = network(RESAMPLED, backbone={"name": "test_convnext"})  # without statistics that training would move
    as_after_some_steps(net)
    net.eval()
    expected = net.predict("c", batches()["c"])
    net.train()
    net.advance(3, 10)
    first = losses(net)["c"]
    net.advance(4, 10)
    assert not torch.equal(losses(net)["c"], first)
    assert torch.equal(net.eval().predict("c", batches()["c"]), expected)


def test_random_tokens_are_not_trained_and_start_as_learned_ones() -> None:
    learned = network({})
    kinds: list[dict[str, Any]] = [{"kind": "random"}, {"frozen": True}, RESAMPLED]
    for kind in kinds:
        net = network(kind)
        assert not tokens_of(net).bank.tokens.requires_grad
        assert list(net.state_dict()) == list(learned.state_dict())
        assert all(torch.equal(value, net.state_dict()[name]) for name, value in learned.state_dict().items())
