"""One optimizer step in parts: those of several processes, and those that one process takes one after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from harness.data.batches import Batch
from harness.data.collation import enlarge
from harness.models.network import MultiTaskNetwork
from harness.training.engine import Engine


class Part(NamedTuple):
    """What one forward pass gets; see `MultiTaskNetwork.forward`."""

    batches: Mapping[str, Batch]
    shares: Mapping[str, float] | None


def differentiate(
    model: nn.Module,
    engine: Engine,
    balancer: nn.Module,
    batches: Mapping[str, Batch],
    accumulation: int,
    lap: Callable[[str], None] = lambda phase: None,
) -> dict[str, float]:
    """The gradient of one step. All processes.

    Where the step is split, the balancer's weights of the losses are those it gives them in each part, which are those
    of the whole as long as its value is linear in the losses; its own parameters learn from the whole losses.

    Args:
        model: The network as `Engine.prepare` gave it.
        engine: The processes.
        balancer: Makes one loss of those of the tasks.
        batches: This process's slices, by dataset name, on its device.
        accumulation: Into how many parts each process splits its slice.
        lap: Called at the end of each phase: ``forward``, ``backward``.

    Returns:
        Loss of the whole batch by dataset name.
    """
    parts = split(cast(MultiTaskNetwork, engine.unwrap(model)), engine, batches, accumulation)
    whole = parts[0].shares is None
    found = []
    for part in engine.in_parts(model, parts):
        losses: dict[str, Tensor] = model(*part)
        loss = balancer(losses) if whole else _weighed(balancer, losses)
        lap("forward")
        engine.backward(loss)
        lap("backward")
        found.append(torch.stack([loss.detach().float() for loss in losses.values()]))
    rows = engine.exchange(torch.stack(found).sum(0).tolist())
    values = {name: sum(row[place] for row in rows) / engine.world for place, name in enumerate(batches)}
    if not whole and any(parameter.requires_grad for parameter in balancer.parameters()):
        engine.backward(balancer({name: torch.tensor(value, device=engine.device) for name, value in values.items()}))
    return values


def split(network: MultiTaskNetwork, engine: Engine, batches: Mapping[str, Batch], accumulation: int) -> list[Part]:
    """Split a step so that its gradient is that of the whole batches. All processes.

    A task's loss is a mean over n things: labelled pixels, questions, positions with a box. Of its parts, with n_p of
    them each, it is the mean weighed by n_p / Σ n_p, not the plain mean. As processes average their gradients, the
    weight is also multiplied by their number. Parts are padded to the same size, as they would be in one batch.

    Args:
        network: Tells what a loss is a mean over.
        engine: The processes.
        batches: This process's slices, by dataset name, on its device.
        accumulation: Into how many parts each process splits its slice.

    Returns:
        The parts of this process. A step that is not split is one part, with losses left as they are.
    """
    if engine.world == 1 and accumulation == 1:
        return [Part(batches, None)]
    names = list(batches)
    parts = [{name: _slice(batches[name], number, accumulation) for name in names} for number in range(accumulation)]
    counts = [network.counts(part) for part in parts]
    sides = [side for name in names for side in batches[name].images.shape[-2:]]
    rows = engine.exchange([*(sum(count[name] for count in counts) for name in names), *sides])
    columns = list(zip(*rows, strict=True))
    totals = {name: max(1.0, sum(columns[place])) for place, name in enumerate(names)}
    largest = [int(max(column)) for column in columns[len(names) :]]
    sizes = {name: (largest[2 * place], largest[2 * place + 1]) for place, name in enumerate(names)}
    return [
        Part(
            {name: enlarge(batch, sizes[name]) for name, batch in part.items()},
            # A loss without anything to be a mean over is a sum over nothing but background, divided by one.
            {name: engine.world * max(1, count[name]) / totals[name] for name in names},
        )
        for part, count in zip(parts, counts, strict=True)
    ]


def _weighed(balancer: nn.Module, losses: Mapping[str, Tensor]) -> Tensor:
    """A scalar with the balanced loss's gradient, but none in the balancer's own parameters."""
    values = {name: loss.detach().requires_grad_() for name, loss in losses.items()}
    weights = torch.autograd.grad(balancer(values), list(values.values()))
    return torch.stack([weight * loss for weight, loss in zip(weights, losses.values(), strict=True)]).sum()


def _slice(batch: Batch, number: int, parts: int) -> Batch:
    images = len(batch.ids)
    return batch.rows(images * number // parts, images * (number + 1) // parts)
