"""Numbers that are not finite end a run with a sentence, not with weights that are worth nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from harness.data.batches import Batch
from harness.errors import HarnessError
from harness.models.network import MultiTaskNetwork
from harness.training.engine import Engine


def gradient_norm(network: nn.Module) -> Tensor:
    """Norm of the whole gradient."""
    return get_total_norm([parameter.grad for parameter in network.parameters() if parameter.grad is not None])


def require_finite(losses: Mapping[str, float], step: int) -> None:
    """Stop at a loss that is not finite.

    Raises:
        HarnessError: It names the task and the step.
    """
    for name, value in losses.items():
        if not math.isfinite(value):
            raise HarnessError(
                f"training stopped: the loss of {name} became {value} at step {step};"
                " lower training.optimizer.learning_rate, or set training.gradient_clip"
            )


def require_finite_gradient(
    norm: Tensor | None, network: MultiTaskNetwork, engine: Engine, batches: Mapping[str, Batch], step: int
) -> None:
    """Stop at a gradient that is not finite, before it spoils the weights. All processes; all have the same gradient.

    Whose loss it came from is found by taking the gradient of each by itself: slow, but only once.

    Args:
        norm: Of the whole gradient; None is not looked at.
        network: Not wrapped.
        engine: Precision and processes.
        batches: Of the step, on the engine's device.
        step: Its number.

    Raises:
        HarnessError: It names the step, and the tasks where not all of them are to blame.
    """
    if norm is None or math.isfinite(value := float(norm)):
        return
    guilty = []
    for name, batch in batches.items():
        network.zero_grad(set_to_none=True)
        with engine.autocast():
            loss = network({name: batch})[name]
        loss.backward()
        guilty.append(not math.isfinite(float(gradient_norm(network))))
    names = [name for name, found in zip(batches, any_process(engine, *guilty), strict=True) if found]
    whose = f" of {', '.join(names)}" if 0 < len(names) < len(batches) else ""
    raise HarnessError(
        f"training stopped: the norm of the gradient{whose} became {value} at step {step};"
        " lower training.optimizer.learning_rate"
    )


def any_process(engine: Engine, *flags: bool) -> list[bool]:
    """For each flag whether it is set in any process. All processes."""
    rows = engine.exchange([float(flag) for flag in flags])
    return [any(column) for column in zip(*rows, strict=True)]
