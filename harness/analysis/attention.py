"""What tokens look at and who looks at them: the attention at exchange sites, computed again from hooks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from harness.models.network import MultiTaskNetwork
from harness.models.placeholders import ExchangeSite

_MEANS = ("read_entropy", "write_entropy", "written", "to_tokens", "even")


@dataclass
class Look:
    """The attention of one visit to a site.

    Attributes:
        site: Its name.
        read: float [B, heads, K, N], each token over the features; rows sum to 1. None where tokens do not read.
        write: float [B, heads, N, K], each feature over the tokens; rows sum to 1. None where nothing is written.
        padding: bool [B, N], True at features that are padding, or None.
        share: float [B, N], length of what is written relative to that of the feature; None as `write`.
        total: float [B, heads, N], how much of its attention each feature gives to tokens; None at exchange sites,
            where there is nothing else to give it to.
        even: float [B, heads, N], what `total` would be if every feature and token got the same; None as `total`.
    """

    site: str
    read: Tensor | None
    write: Tensor | None
    padding: Tensor | None
    share: Tensor | None
    total: Tensor | None = None
    even: Tensor | None = None


@contextmanager
def watched(network: MultiTaskNetwork, take: Callable[[Look], None]) -> Iterator[None]:
    """Within, `take` is given the attention of every visit to an exchange site."""
    handles: list[Any] = []
    placeholders = network.placeholders
    for site in network.site_names() if placeholders is not None else ():
        assert placeholders is not None
        module = placeholders.sites[site.replace(".", "/")]
        if isinstance(module, ExchangeSite):
            handles += _hooks(site, module, take)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hooks(site: str, module: ExchangeSite, take: Callable[[Look], None]) -> list[Any]:
    seen: dict[str, Tensor] = {}

    def remember(name: str) -> Any:
        def hook(part: nn.Module, inputs: object, output: Tensor) -> None:
            seen[name] = output.detach().float()

        return hook

    def finish(part: nn.Module, args: tuple[Any, ...], options: dict[str, Any], output: object) -> None:
        padding = args[2] if len(args) > 2 else options.get("padding")
        take(_look(site, seen, args[0].detach().float(), padding, module.heads))
        seen.clear()

    names = [name for name in ("down", "read_query", "write_key", "up") if hasattr(module, name)]
    handles = [getattr(module, name).register_forward_hook(remember(name)) for name in names]
    return [*handles, module.register_forward_hook(finish, with_kwargs=True)]


def _look(site: str, seen: dict[str, Tensor], features: Tensor, padding: Tensor | None, heads: int) -> Look:
    read = write = share = None
    if {"read_query", "down"} <= seen.keys():
        read = attention(seen["read_query"], seen["down"], heads, padding)
    if {"write_key", "down"} <= seen.keys():
        write = attention(seen["down"], seen["write_key"], heads)
    if "up" in seen:
        share = seen["up"].norm(dim=-1) / features.norm(dim=-1).clamp_min(1e-12)
    return Look(site, read, write, padding, share)


def attention(query: Tensor, key: Tensor, heads: int, padding: Tensor | None = None) -> Tensor:
    """The weights that `harness.models.attention.attend` mixes values with: softmax(Q K^T / sqrt(a / heads)).

    Args:
        query: float [B, M, a].
        key: float [B, N, a].
        heads: Divides a.
        padding: bool [B, N], True at keys that have no weight.

    Returns:
        float [B, heads, M, N], rows sum to 1.
    """
    q, k = (one.unflatten(-1, (heads, -1)).transpose(1, 2) for one in (query, key))
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if padding is not None:
        scores = scores.masked_fill(padding[:, None, None, :], float("-inf"))
    return scores.softmax(-1)


def entropy(weights: Tensor, choices: Tensor | int) -> Tensor | None:
    """Entropy of attention as a share of the largest: 0 with all weight on one place, 1 where it is spread evenly.

    Args:
        weights: float [..., N], rows sum to 1.
        choices: How many places can have weight, a number or a tensor that goes with the leading dimensions.

    Returns:
        float [...], or None where there is nothing to choose anywhere.
    """
    most = torch.as_tensor(choices, dtype=torch.float32, device=weights.device).log()
    if not bool((most > 0).any()):
        return None
    found = -torch.xlogy(weights, weights).sum(-1)
    return (found / most.clamp_min(1e-12)).clamp(0, 1)


@dataclass
class _Sums:
    samples: int = 0
    values: dict[str, float] = field(default_factory=dict)
    mass: Tensor | None = None
    focus: Tensor | None = None


class Summary:
    """Means over samples of what attention does at each site of one task.

    Heads, samples and (of what is written) features that are no padding count alike.
    """

    def __init__(self) -> None:
        self._sites: dict[str, _Sums] = {}

    def add(self, look: Look) -> None:
        """Take up one visit."""
        sums = self._sites.setdefault(look.site, _Sums())
        values: dict[str, Tensor | None] = {}
        if look.read is not None:
            count = look.read.shape[0]
            valid: Tensor | int = look.read.shape[-1]
            if look.padding is not None:
                valid = (~look.padding).sum(1)[:, None, None]
            spread = entropy(look.read, valid)
            values["read_entropy"] = None if spread is None else spread.mean((1, 2))
            if spread is not None:
                sums.focus = _added(sums.focus, spread.mean(1).double().sum(0).cpu())
        if look.write is not None:
            count = look.write.shape[0]
            spread = entropy(look.write, look.write.shape[-1])
            values["write_entropy"] = None if spread is None else _over_features(spread.mean(1), look.padding)
            mass = _over_features(look.write.mean(1).transpose(1, 2), look.padding)
            sums.mass = _added(sums.mass, mass.double().sum(0).cpu())
        if look.share is not None:
            values["written"] = _over_features(look.share, look.padding)
        for name, part in (("to_tokens", look.total), ("even", look.even)):
            if part is not None:
                count = len(part)
                values[name] = _over_features(part.mean(1), look.padding)
        if look.read is None and look.write is None and look.total is None:
            return
        sums.samples += count
        for name, value in values.items():
            if value is not None:
                sums.values[name] = sums.values.get(name, 0.0) + float(value.double().sum())

    def sites(self) -> dict[str, dict[str, Any]]:
        """By site in the order of a pass.

        Returns:
            ``read_entropy`` and ``write_entropy`` in [0, 1], ``written`` (length of what is written relative to the
            feature's), ``to_tokens`` (the share of their attention that features give to inserted tokens) and ``even``
            (what that would be if all got the same), ``mass`` (K numbers: the share of what features look at among the
            tokens that each token gets; they sum to 1) and ``token_entropy`` (K numbers: `read_entropy` of each token).
            None where there is no such thing.
        """
        return {
            site: {
                **{name: _mean(sums, name) for name in _MEANS},
                "mass": None if sums.mass is None else (sums.mass / sums.samples).tolist(),
                "token_entropy": None if sums.focus is None else (sums.focus / sums.samples).tolist(),
            }
            for site, sums in self._sites.items()
        }


def _mean(sums: _Sums, name: str) -> float | None:
    return sums.values[name] / sums.samples if name in sums.values else None


def _added(total: Tensor | None, more: Tensor) -> Tensor:
    return more if total is None else total + more


def _over_features(values: Tensor, padding: Tensor | None) -> Tensor:
    """Mean over the last dimension, that of the N features, without those that are padding."""
    if padding is None:
        return values.mean(-1)
    kept = (~padding).to(values)
    while kept.dim() < values.dim():
        kept = kept.unsqueeze(1)
    return (values * kept).sum(-1) / kept.sum(-1)
