"""Adversarial tokens: a second pass of each step, with tokens that are moved against the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from harness.data.batches import Batch
from harness.models.network import MultiTaskNetwork
from harness.training.balancing.base import Balancer
from harness.training.engine import Engine
from harness.training.parts import differentiate
from harness.training.placeholders.objectives.config import AdversarialConfig
from harness.training.placeholders.objectives.objective import CURVE
from harness.training.placeholders.samples import Samples


def differentiate_with_adversary(
    config: AdversarialConfig | None,
    model: nn.Module,
    engine: Engine,
    balancer: Balancer,
    batches: Mapping[str, Batch],
    accumulation: int,
    lap: Callable[[str], None] = lambda phase: None,
    points: dict[str, float] | None = None,
    cosines: bool = False,
    samples: Samples | None = None,
) -> dict[str, float]:
    """The gradient of L(P) + weight · L(P + δ) with δ = epsilon · rms(P) · sign ∇_P L, a constant. All processes.

    L is all that a step minimises: balanced losses, penalties, and what else tokens are trained for. Its gradient is
    that of the whole step, so δ is the same however a step is divided. The second pass starts from what the first one
    started from, the balancer's state and the draws of dropout, and leaves no trace of itself: batch-norm statistics,
    the balancer and random streams are what the first pass made of them. Tokens that no task of the step has met have
    no gradient, and do not move.

    Source: Goodfellow et al. 2015 (arXiv:1412.6572), section 5, eq. 3, with the loss at the moved point added.

    Args:
        config: None: only L(P).
        model: The network as `Engine.prepare` gave it.
        engine: The processes.
        balancer: Makes one loss of those of the tasks, or one gradient.
        batches: This process's slices, by dataset name, on its device.
        accumulation: Into how many parts each process splits its slice.
        lap: See `differentiate`.
        points: See `differentiate`; of the first pass.
        cosines: See `differentiate`; of the first pass.
        samples: See `differentiate`.

    Returns:
        As `differentiate`, with weight · Σ_t L_t(P + δ) as ``placeholder/adversarial``, before balancing.
    """
    if config is None:
        return differentiate(model, engine, balancer, batches, accumulation, lap, points, cosines, samples)
    network = cast(MultiTaskNetwork, engine.unwrap(model))
    assert network.placeholders is not None
    tokens = network.placeholders.bank.tokens
    streams, before = _streams(engine), deepcopy(balancer.state_dict())
    values = differentiate(model, engine, balancer, batches, accumulation, lap, points, cosines, samples)
    if tokens.grad is None:
        return values
    move = adversarial_move(tokens, tokens.grad, config.epsilon)
    trained = [one for part in (network, balancer) for one in part.parameters() if one.requires_grad]
    first = [one.grad for one in trained]
    for one in trained:
        one.grad = None
    after = deepcopy(balancer.state_dict())
    balancer.load_state_dict(before)
    with _unnoticed(network, engine, streams), _moved(tokens, move):
        moved = differentiate(model, engine, balancer, batches, accumulation, lap, samples=samples)
    balancer.load_state_dict(after)
    for one, gradient in zip(trained, first, strict=True):
        if one.grad is not None:
            one.grad = config.weight * one.grad if gradient is None else gradient + config.weight * one.grad
        else:
            one.grad = gradient
    return values | {f"{CURVE}adversarial": config.weight * sum(moved[name] for name in batches)}


def adversarial_move(tokens: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    """δ = epsilon · rms(P) · sign ∇_P L.

    Args:
        tokens: P, float [..., K, d].
        gradient: ∇_P L, of the same shape, times any positive number.
        epsilon: Size, as a share of the root mean square over all of P.
    """
    return epsilon * tokens.detach().square().mean().sqrt() * gradient.sign()


@contextmanager
def _moved(tokens: nn.Parameter, move: Tensor) -> Iterator[None]:
    """The tokens are P + δ for the time of a block, and then exactly P again."""
    kept = tokens.detach().clone()
    with torch.no_grad():
        tokens.add_(move)
    try:
        yield
    finally:
        with torch.no_grad():
            tokens.copy_(kept)


@contextmanager
def _unnoticed(network: MultiTaskNetwork, engine: Engine, streams: list[Tensor]) -> Iterator[None]:
    """Buffers and random streams are afterwards what they were before; inside, streams start as given.

    Inside, nothing beside the network learns from its features: copies of heads have learned from the first pass.
    """
    kept = [(buffer, buffer.clone()) for buffer in network.buffers()]
    substitution = network.substitution
    choice = substitution.choice if substitution is not None else None
    if substitution is not None and choice is not None:
        substitution.choice = replace(choice, learn=None)
    with torch.random.fork_rng(devices=[engine.device] if engine.device.type == "cuda" else []):
        torch.set_rng_state(streams[0])
        if engine.device.type == "cuda":
            torch.cuda.set_rng_state(streams[1], engine.device)
        yield
    if substitution is not None:
        substitution.choice = choice
    with torch.no_grad():
        for buffer, value in kept:
            buffer.copy_(value)


def _streams(engine: Engine) -> list[Tensor]:
    streams = [torch.get_rng_state()]
    return streams + ([torch.cuda.get_rng_state(engine.device)] if engine.device.type == "cuda" else [])
