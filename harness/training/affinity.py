"""TAG: how a step for one task changes the losses of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import nn

from harness.data.batches import Batch
from harness.models.network import MultiTaskNetwork
from harness.training.balancing.gradients import Jacobian, TaskGradients
from harness.training.engine import Engine
from harness.training.parts import look_back, split


def affinity(
    model: nn.Module, engine: Engine, batches: Mapping[str, Batch], accumulation: int, rate: float
) -> dict[str, float]:
    """Inter-task affinities on one step's batches. All processes.

    Z_ij = 1 - L_j(θ - η ∇ L_i) / L_j(θ): above 0, a plain gradient step of size η for task i in the parameters that
    tasks share lowers the loss of task j. No other parameter takes the step. Losses are of the same batches, in
    training mode, with the same draws of dropout. Nothing remembers it: weights, statistics of batch norms and random
    streams are as they were.

    Args:
        model: The network as `Engine.prepare` gave it, without gradients.
        engine: The processes.
        batches: This process's slices, by dataset name, on its device.
        accumulation: Into how many parts each process splits its slice.
        rate: η, the learning rate of this step.

    Returns:
        ``affinity/<i>|<j>`` for every ordered pair of tasks; a task's step for itself is there, too. A pair whose loss
        is 0 is left out. Nothing where the tasks share no parameter, as in a step of one task: no step could change
        anything, and zeros would dilute the mean over steps.

    Source:
        Fifty et al. 2021, eq. 1 (arXiv:2109.04617).
    """
    jacobian = whole_gradients(model, engine, batches, accumulation) if len(batches) > 1 else None
    if jacobian is None or not jacobian.shared:
        return {}
    before = look_back(model, engine, batches, accumulation)
    kept = [parameter.detach().clone() for parameter in jacobian.shared]
    points: dict[str, float] = {}
    for row, task in enumerate(jacobian.tasks):
        jacobian.step(row, rate)
        after = look_back(model, engine, batches, accumulation)
        points |= {f"affinity/{task}|{name}": 1 - after[name] / loss for name, loss in before.items() if loss}
        with torch.no_grad():
            for parameter, value in zip(jacobian.shared, kept, strict=True):
                parameter.copy_(value)
    return points


def whole_gradients(model: nn.Module, engine: Engine, batches: Mapping[str, Batch], accumulation: int) -> Jacobian:
    """Each task's gradient on whole batches, without a trace in what training remembers. All processes.

    Args:
        model: The network as `Engine.prepare` gave it, without gradients.
        engine: The processes.
        batches: This process's slices, by dataset name, on its device.
        accumulation: Into how many parts each process splits its slice.
    """
    network = cast(MultiTaskNetwork, engine.unwrap(model))
    found = TaskGradients([parameter for parameter in network.parameters() if parameter.requires_grad], list(batches))
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    with (
        torch.random.fork_rng(devices=[engine.device] if engine.device.type == "cuda" else []),
        engine.alone(model),
    ):
        for part in split(network, engine, batches, accumulation):
            losses = model(*part)
            found.add({name: losses[name] for name in batches}, keep=False)
    with torch.no_grad():
        for buffer, value in buffers:
            buffer.copy_(value)
    return found.whole(engine)
