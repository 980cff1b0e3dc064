"""The one place that knows Accelerate: device, precision, backward, and later several processes."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

_PRECISION = {"32": "no", "bf16": "bf16", "16": "fp16"}


class Engine:
    """Thin adapter over `accelerate.Accelerator`.

    Args:
        precision: ``32``, ``bf16`` or ``16``.
    """

    def __init__(self, precision: str) -> None:
        self._accelerator = Accelerator(mixed_precision=_PRECISION[precision], step_scheduler_with_optimizer=False)

    @property
    def device(self) -> torch.device:
        """Where batches go."""
        return self._accelerator.device

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        """Model and optimizer, moved and wrapped. Call the wrapped model for losses, `unwrap` for anything else."""
        return self._accelerator.prepare(model, optimizer)

    def unwrap(self, model: nn.Module) -> nn.Module:
        """The network itself."""
        return self._accelerator.unwrap_model(model)

    def backward(self, loss: Tensor) -> None:
        """Gradients of a scalar, scaled as the precision needs."""
        self._accelerator.backward(loss)

    def clip(self, model: nn.Module, limit: float) -> Tensor | None:
        """Clip the whole gradient's norm to `limit`; returns the norm before."""
        return self._accelerator.clip_grad_norm_(model.parameters(), limit)

    def autocast(self) -> Any:
        """Context of the mixed precision, for code outside the wrapped forward."""
        return self._accelerator.autocast()

    def state(self) -> dict[str, Any]:
        """What the engine must remember between runs: the gradient scaler of ``16``."""
        scaler = self._accelerator.scaler
        return {"scaler": scaler.state_dict()} if scaler is not None else {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore `state`."""
        if "scaler" in state and self._accelerator.scaler is not None:
            self._accelerator.scaler.load_state_dict(state["scaler"])
