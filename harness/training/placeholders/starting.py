"""What tokens start from, where that takes training images."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from harness.data.loading import TaskData
from harness.models.network import MultiTaskNetwork
from harness.training.engine import Engine
from harness.training.placeholders.objectives.objective import Objectives


def begin_tokens(network: MultiTaskNetwork, engine: Engine, data: Mapping[str, TaskData]) -> None:
    """Let the objectives see training images before a run's first step. All processes.

    A run that goes on from a checkpoint has it behind it. The main process does the work, and all get its result.

    Args:
        network: Not wrapped, on the engine's device.
        engine: The processes.
        data: Training images by task.
    """
    objectives = network.objectives
    if not isinstance(objectives, Objectives):
        return
    engine.from_main(lambda: objectives.begin(network, data))
    for module in (network.placeholders, objectives):
        assert isinstance(module, nn.Module)
        engine.share(module)
