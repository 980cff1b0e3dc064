"""One optimizer step in parts: those of several processes, and those that one process takes one after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from harness.data.batches import Batch
from harness.data.collation import enlarge
from harness.models.network import PENALTY, MultiTaskNetwork
from harness.models.step_tokens import PART
from harness.training.balancing.base import Balancer
from harness.training.balancing.step import Step, present
from harness.training.engine import Engine
from harness.training.placeholders.samples import Samples, pop_samples


class Part(NamedTuple):
    """What one forward pass gets; see `MultiTaskNetwork.forward`."""

    batches: Mapping[str, Batch]
    shares: Mapping[str, float] | None
    samples: Samples | None = None


def differentiate(
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
    """The gradient of one step. All processes.

    A penalty of the sharing architecture, and every other term that is no task's loss, is added to what the balancer
    gives, once, however the step is split. A task without a label in the whole step, whose loss is exactly 0, rests for
    the balancer (see `present`): its loss is added to the others afterwards, too.

    Args:
        model: The network as `Engine.prepare` gave it.
        engine: The processes.
        balancer: Makes one loss of those of the tasks, or one gradient.
        batches: This process's slices, by dataset name, on its device.
        accumulation: Into how many parts each process splits its slice.
        lap: Called at the end of each phase: ``forward``, ``backward``.
        points: Gets points of the learning curves: ``weight/<task>`` and ``cosine/<task>|<task>``.
        cosines: Find the cosines of the tasks' gradients whatever the balancer needs, without a trace in the result.
        samples: This process's slices of unlabelled batches, whose losses are added as the penalty is; None for none.

    Returns:
        Loss of the whole batch by dataset name, and the terms that are no task's by theirs, such as ``penalty``.
    """
    network = cast(MultiTaskNetwork, engine.unwrap(model))
    parts = split(network, engine, batches, accumulation)
    if samples is not None:
        sliced = samples.split(engine, accumulation)
        parts = [part._replace(samples=one) for part, one in zip(parts, sliced, strict=True)]
    step = Step(model, engine, balancer, list(batches), len(parts), parts[0].shares is None, cosines)
    heads = [network.heads[name] for name in batches] if balancer.measures else []
    for head in heads:
        head.measuring = True  # type: ignore[assignment]
    found, measured, resting, values = [], [], set[str](), dict[str, float]()
    for part, _ in zip(parts, step.parts(), strict=True):
        losses: dict[str, Tensor] = model(*part)
        if PENALTY in losses:
            losses[PENALTY] = losses[PENALTY] / len(parts)
        names = list(losses)
        found.append(torch.stack([loss.detach().float() for loss in losses.values()]))
        if len(found) == 1 and not balancer.constant:
            values = _summed(engine, names, found)
            resting = _without_labels(network, engine, parts, values)
        beside = pop_samples(losses)
        terms = [losses.pop(name) for name in [*losses] if name not in batches or name in resting]
        terms += [beside] if beside is not None else []
        penalty = reduce(torch.add, terms) if terms else None
        if heads:
            shares = part.shares or dict.fromkeys(batches, 1.0)
            own = [cast(Tensor, head.indicator) * shares[name] for name, head in zip(batches, heads, strict=True)]
            measured.append(torch.stack(own))
        lap("forward")
        step.add(losses, penalty)
        lap("backward")
    if len(parts) > 1 or not values:
        values = _summed(engine, names, found)
    here = present({name: values[name] for name in batches})
    step.finish(here, points)
    if heads:
        indicators = _summed(engine, list(batches), measured)
        balancer.judge({name: indicators[name] for name in here})
    lap("backward")
    return values


@torch.no_grad()
def look_back(model: nn.Module, engine: Engine, batches: Mapping[str, Batch], accumulation: int) -> dict[str, float]:
    """The losses of a step's batches once more, after its optimizer step. All processes.

    Nothing remembers it: statistics of batch norms and random streams are as they were.

    Args:
        model: The network as `Engine.prepare` gave it.
        engine: The processes.
        batches: As `differentiate` got them.
        accumulation: As `differentiate` got it.

    Returns:
        Loss of the whole batch by dataset name.
    """
    network = cast(MultiTaskNetwork, engine.unwrap(model))
    kept = [(buffer, buffer.clone()) for buffer in network.buffers()]
    found = []
    with torch.random.fork_rng(devices=[engine.device] if engine.device.type == "cuda" else []):
        for part in split(network, engine, batches, accumulation):
            losses: dict[str, Tensor] = model(*part)
            names = list(batches)
            found.append(torch.stack([losses[name].float() for name in names]))
    for buffer, value in kept:
        buffer.copy_(value)
    return _summed(engine, names, found)


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
    counted = list(counts[0])
    rows = engine.exchange([*(sum(count[name] for count in counts) for name in counted), *sides])
    columns = list(zip(*rows, strict=True))
    totals = {name: max(1.0, sum(columns[place])) for place, name in enumerate(counted)}
    largest = [int(max(column)) for column in columns[len(counted) :]]
    sizes = {name: (largest[2 * place], largest[2 * place + 1]) for place, name in enumerate(names)}
    return [
        Part(
            {name: enlarge(batch, sizes[name]) for name, batch in part.items()},
            # A loss without anything to be a mean over is a sum over nothing but background, divided by one.
            {name: engine.world * max(1, count[name]) / totals[name] for name in counted} | {PART: 1 / accumulation},
        )
        for part, count in zip(parts, counts, strict=True)
    ]


def _without_labels(
    network: MultiTaskNetwork, engine: Engine, parts: Sequence[Part], losses: Mapping[str, float]
) -> set[str]:
    """The tasks whose loss is 0 in a step, as far as its first part can tell. All processes.

    Args:
        network: Tells what a loss is a mean over.
        engine: The processes.
        parts: Of this process.
        losses: Of the first parts of all processes, by task and other terms.
    """
    names = [name for name, loss in losses.items() if loss == 0 and name in parts[0].batches]
    if names and len(parts) > 1:  # the losses of the other parts are not known yet, but their labels are
        counts = [network.counts({name: part.batches[name] for name in names}) for part in parts[1:]]
        rows = engine.exchange([sum(count[name] for count in counts) for name in names])
        names = [name for name, column in zip(names, zip(*rows, strict=True), strict=True) if not any(column)]
    return set(names)


def _summed(engine: Engine, names: Sequence[str], parts: Sequence[Tensor]) -> dict[str, float]:
    """Losses of the whole step from those of its parts, float [names] each."""
    rows = engine.exchange(torch.stack(list(parts)).sum(0).tolist())
    return {name: sum(row[place] for row in rows) / engine.world for place, name in enumerate(names)}


def _slice(batch: Batch, number: int, parts: int) -> Batch:
    images = len(batch.ids)
    return batch.rows(images * number // parts, images * (number + 1) // parts)
