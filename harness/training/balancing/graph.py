"""Which weight the tasks share last, read from the graph of a forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def last_shared(losses: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> nn.Parameter | None:
    """The matrix or kernel that the forward pass uses last among those that every loss has a gradient in.

    Takes a backward pass per loss, through a graph that stays.

    Args:
        losses: Scalars.
        parameters: Among which.

    Returns:
        None if there is none.
    """
    common = {parameter for parameter in parameters if parameter.dim() > 1}
    for loss in losses:
        if not loss.requires_grad:
            return None
        asked = [parameter for parameter in parameters if parameter in common]
        gradients = torch.autograd.grad(loss, asked, retain_graph=True, allow_unused=True) if asked else ()
        common = {one for one, gradient in zip(asked, gradients, strict=True) if gradient is not None}
    times = last_uses(losses)
    return max((one for one in parameters if one in common), key=lambda one: times.get(one, -1), default=None)


def last_uses(losses: Sequence[Tensor]) -> dict[nn.Parameter, int]:
    """When a forward pass last used each of the parameters in the graph of its losses: larger is later."""
    found: dict[nn.Parameter, int] = {}
    waiting: list[Any] = [loss.grad_fn for loss in losses if loss.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        for following, _ in node.next_functions:
            if following is None:
                continue
            variable = getattr(following, "variable", None)
            if variable is not None:
                found[variable] = max(found.get(variable, -1), node._sequence_nr())
            elif following not in seen:
                seen.add(following)
                waiting.append(following)
    return found
