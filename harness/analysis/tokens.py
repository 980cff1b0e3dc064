"""Watching and changing the tokens of a network on their way, pass by pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from harness.models.network import MultiTaskNetwork

Visit = tuple[str, int]  # a site, and how often it was visited in the same pass before: columns visit one in turn
Change = Callable[[Visit, Tensor], Tensor]


@contextmanager
def changed(network: MultiTaskNetwork, name: str, change: Change) -> Iterator[None]:
    """Within, tokens go on as `change` gives them back, at every site of a task's passes.

    Args:
        network: With tokens.
        name: The task whose images go through.
        change: Is given the visit and the tokens, float [B, K, d], after they read; of the same shape it gives back
            those to go on with. It must not write into what it is given.
    """
    placeholders = network.placeholders
    assert placeholders is not None
    visits: Counter[str] = Counter()

    def edit(site: str, tokens: Tensor) -> Tensor:
        visit = (site, visits[site])
        visits[site] += 1
        return change(visit, tokens)

    def begin(module: nn.Module, inputs: object) -> None:
        visits.clear()

    handle = _entrance(network, name).register_forward_pre_hook(begin)
    placeholders.edit = edit
    try:
        yield
    finally:
        placeholders.edit = None
        handle.remove()


class Recording:
    """Remembers all tokens that come by, in the order in which they do.

    Attributes:
        tokens: By visit, in the order of a pass: float32 [N, K, d] on the CPU; N counts images or, at sites where
            questions meet tokens, questions.
    """

    def __init__(self) -> None:
        self._parts: dict[Visit, list[Tensor]] = {}

    def __call__(self, visit: Visit, tokens: Tensor) -> Tensor:
        """Look, and change nothing."""
        self._parts.setdefault(visit, []).append(tokens.detach().float().cpu())
        return tokens

    @property
    def tokens(self) -> dict[Visit, Tensor]:
        """See the class."""
        return {visit: torch.cat(parts) for visit, parts in self._parts.items()}


def means(tokens: Mapping[Visit, Tensor]) -> dict[Visit, Tensor]:
    """Each token's mean over samples, float32 [K, d] by visit; exact where all samples have the same.

    Summed in float64: the sum of n equal float32 numbers is exact there, so a token that is the same everywhere is
    replaced by itself, bit for bit.
    """
    return {visit: found.double().mean(0).float() for visit, found in tokens.items()}


def replaced(number: int | None, by: Mapping[Visit, Tensor]) -> Change:
    """Put fixed vectors, float [K, d] by visit, in the place of one token of every sample, or of all."""

    def change(visit: Visit, tokens: Tensor) -> Tensor:
        if number is None:
            return by[visit].to(tokens).expand_as(tokens).clone()
        tokens = tokens.clone()
        tokens[:, number] = by[visit][number].to(tokens)
        return tokens

    return change


def zeroed(number: int | None = None) -> Change:
    """Put zeros in the place of one token, or of all."""

    def change(visit: Visit, tokens: Tensor) -> Tensor:
        if number is None:
            return torch.zeros_like(tokens)
        tokens = tokens.clone()
        tokens[:, number] = 0
        return tokens

    return change


def taken_from(others: Mapping[Visit, Tensor], shift: int | None = None) -> Change:
    """Put the tokens of other samples in the place of each sample's own.

    Sample i of a site gets the tokens of sample i + `shift` there, counted round and round.

    Args:
        others: float [M, K, d] by visit; sites that are not among them keep their own.
        shift: None means half of M, so that nobody gets tokens of its own image.
    """
    seen: Counter[Visit] = Counter()

    def change(visit: Visit, tokens: Tensor) -> Tensor:
        if visit not in others or others[visit].shape[1:] != tokens.shape[1:]:
            return tokens
        source = others[visit]
        start = seen[visit] + (len(source) // 2 if shift is None else shift)
        seen[visit] += len(tokens)
        rows = (torch.arange(len(tokens)) + start) % len(source)
        return source[rows].to(tokens)

    return change


def _entrance(network: MultiTaskNetwork, name: str) -> nn.Module:
    """The module that every pass of a task calls once, before any other."""
    if network.reads(name) != "nothing":
        assert network.shared is not None
        return network.shared
    encoder = network.text[name] if name in network.text else network.clip_text  # noqa: SIM401 - no dict
    assert encoder is not None
    return encoder
