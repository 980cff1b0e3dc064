"""What a network costs to run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.data.batches import Batch, VqaBatch
from harness.data.loading import TaskData
from harness.models.network import MultiTaskNetwork


def macs_per_image(network: MultiTaskNetwork, name: str, data: TaskData, questions: int = 1) -> int:
    """Multiply-accumulates of one task's prediction for one image (VQA: and some of its questions).

    Counted by torch's FlopCounterMode over matrix products, convolutions and attention of a real forward pass, two
    floating-point operations to one multiply-accumulate. Element-wise work is not counted, as is customary.

    Args:
        network: In any mode, on any device; left as it was.
        name: The task's dataset name.
        data: The split to take the image from.
        questions: VQA: how many at most.
    """
    batch = data.batch([(-1, 0)])
    if isinstance(batch, VqaBatch):
        asked = slice(0, questions)
        batch = replace(
            batch,
            question_ids=batch.question_ids[asked],
            image_index=batch.image_index[asked],
            words=batch.words[asked],
            targets=batch.targets[asked],
            texts=batch.texts[asked],
        )
    device = next(network.parameters()).device
    return _counted(network, [name], lambda: network.predict(name, batch.to(device)))


def macs_together(network: MultiTaskNetwork, batches: Mapping[str, Batch]) -> int:
    """Multiply-accumulates of one forward pass of several tasks, counted as in `macs_per_image`.

    Args:
        network: In any mode; left as it was.
        batches: By dataset name, on the network's device. What tasks share of their images is encoded once, where the
            architecture does so.
    """
    return _counted(network, batches, lambda: network.outputs(batches))


def _counted(network: MultiTaskNetwork, names: Iterable[str], passed: Callable[[], Any]) -> int:
    training = network.training
    state = torch.get_rng_state()
    network.eval()
    try:
        for name in names:
            network.prepare(name)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            passed()
    finally:
        network.train(training)
        torch.set_rng_state(state)
    return int(counter.get_total_flops()) // 2
