"""The one place that knows Accelerate: device, precision, backward, and what the processes of a run do together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from harness.errors import HarnessError
from harness.models.normalization import synchronize
from harness.training.devices import world

_PRECISION = {"32": "no", "bf16": "bf16", "16": "fp16"}
# How long one process waits for another that reads, scores or waits its turn. One that died is noticed at once.
_PATIENCE = timedelta(days=7)
Value = TypeVar("Value")


class Engine:
    """Thin adapter over `accelerate.Accelerator`.

    Where this process was started by torch's launcher, making an engine joins it with the others. They meet in two
    groups: gradients go through NCCL on GPUs and gloo on CPUs, everything else is small and goes through gloo, so that
    it never waits for a GPU.

    Every method that has all processes in its description must be called by all of them, in the same order.

    Args:
        precision: ``32``, ``bf16`` or ``16``.

    Raises:
        HarnessError: There is no GPU for ``16``.

    Attributes:
        rank: Number of this process, from 0; the first one is the main one, which alone prints and writes.
        world: How many processes there are.
    """

    def __init__(self, precision: str) -> None:
        if precision == "16" and not torch.accelerator.is_available():
            raise HarnessError("training.precision: 16 needs a GPU, and there is none here; use bf16, or 32")
        AcceleratorState._reset_state()  # an earlier run of this process may have had another precision
        self._accelerator = Accelerator(
            cpu=world() > 1 and not torch.cuda.is_available(),
            mixed_precision=_PRECISION[precision],
            step_scheduler_with_optimizer=False,
            kwargs_handlers=[
                # Weights may take no part in a step: a neck whose maps no head reads, the head of a task that rests.
                # Buffers are the main process's in the end (`share`) and need not be sent around before every step.
                DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False),
                InitProcessGroupKwargs(timeout=_PATIENCE),
            ],
        )
        self.rank: int = self._accelerator.process_index
        self.world: int = self._accelerator.num_processes
        self._control = _control_group() if self.world > 1 else None
        self._parent = os.getppid()

    @property
    def device(self) -> torch.device:
        """Where batches go."""
        return self._accelerator.device

    @property
    def main(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    @property
    def orphaned(self) -> bool:
        """Whether the launcher is gone, so that nobody could stop this process any more."""
        return self.world > 1 and os.getppid() != self._parent

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        """Model and optimizer, moved and wrapped. Call the wrapped model for losses, `unwrap` for anything else.

        All processes: they go on with the main one's weights. On several GPUs batch norms see the whole step's images;
        torch has none that do so on CPUs, where each sees those of its process.
        """
        if self.world > 1 and self.device.type == "cuda":
            synchronize(model)
        return self._accelerator.prepare(model, optimizer)

    def unwrap(self, model: nn.Module) -> nn.Module:
        """The network itself.

        `prepare` wraps in nothing else. Accelerate's own way looks through all modules for compiled ones, and for
        libraries on the disk: 3 milliseconds, several times a step.
        """
        return model.module if isinstance(model, DistributedDataParallel) else model

    def in_parts(self, model: nn.Module, parts: Sequence[Value]) -> Iterator[Value]:
        """The parts of a step; gradients are exchanged after the last one only."""
        for number, part in enumerate(parts, start=1):
            if number < len(parts):
                with self._accelerator.no_sync(model):
                    yield part
            else:
                yield part

    def alone(self, model: nn.Module) -> AbstractContextManager[None]:
        """Forward and backward passes inside exchange no gradients."""
        return self._accelerator.no_sync(model)

    @property
    def scale(self) -> float:
        """What gradients are multiplied with until the optimizer's step: 1, but for the scaler of ``16``."""
        scaler = self._accelerator.scaler
        if scaler is None:
            return 1.0
        # Asked in this way it also knows that there are scaled gradients, which it must be told before it unscales.
        return float(scaler.scale(torch.ones((), device=self.device)))

    def average(self, tensor: Tensor) -> None:
        """Overwrite a dense tensor on the device by its mean over all processes. All processes."""
        if self.world > 1:
            dist.all_reduce(tensor)
            tensor /= self.world

    def backward(self, loss: Tensor) -> None:
        """Gradients of a scalar, scaled as the precision needs; the mean over all processes."""
        self._accelerator.backward(loss)

    def clip(self, model: nn.Module, limit: float) -> Tensor | None:
        """Clip the whole gradient's norm to `limit`; returns the norm before."""
        return self._accelerator.clip_grad_norm_(model.parameters(), limit)

    def autocast(self) -> Any:
        """Context of the mixed precision, for code outside the wrapped forward."""
        return self._accelerator.autocast()

    def exchange(self, values: Sequence[float]) -> list[list[float]]:
        """Every process's values, in the order of their ranks. All processes, with equally many values."""
        if self._control is None:
            return [list(values)]
        own = torch.tensor(list(values), dtype=torch.float64)
        found = [torch.empty_like(own) for _ in range(self.world)]
        dist.all_gather(found, own, group=self._control)
        return [one.tolist() for one in found]

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process. All processes."""
        return any(value for (value,) in self.exchange([float(flag)]))

    def gather(self, value: Value) -> list[Value]:
        """Every process's value at the main process, in the order of their ranks; elsewhere nothing. All processes."""
        if self._control is None:
            return [value]
        found: list[Any] = [None] * self.world if self.main else []
        dist.gather_object(value, found if self.main else None, dst=0, group=self._control)
        return found

    def from_main(self, make: Callable[[], Value]) -> Value:
        """What `make` gives in the main process, in all of them. All processes; the others do not call it."""
        if self._control is None:
            return make()
        box: list[Any] = [make() if self.main else None]
        dist.broadcast_object_list(box, src=0, group=self._control)
        return box[0]

    @torch.no_grad()
    def share(self, module: nn.Module) -> None:
        """Give weights and statistics of the main process to the others. All processes."""
        if self._control is not None:
            for tensor in module.state_dict().values():
                _broadcast(tensor)

    @torch.no_grad()
    def share_statistics(self, module: nn.Module) -> None:
        """Give statistics of the main process to the others, and leave weights alone. All processes."""
        if self._control is not None:
            for buffer in module.buffers():
                _broadcast(buffer)

    def state(self) -> dict[str, Any]:
        """What the engine must remember between runs: the gradient scaler of ``16``."""
        scaler = self._accelerator.scaler
        return {"scaler": scaler.state_dict()} if scaler is not None else {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore `state`."""
        if "scaler" in state and self._accelerator.scaler is not None:
            self._accelerator.scaler.load_state_dict(state["scaler"])


def leave() -> None:
    """Part from the other processes, where there are any; the last thing that a process does with them."""
    if dist.is_initialized():
        dist.destroy_process_group()
        _control_group.cache_clear()


@cache
def _control_group() -> Any:
    return dist.new_group(backend="gloo", timeout=_PATIENCE)


def _broadcast(tensor: Tensor) -> None:
    """Overwrite by the main process's; collectives want dense memory, which a view or channels-last weight is not."""
    dense = tensor.detach().contiguous()
    dist.broadcast(dense, src=0)
    if dense.data_ptr() != tensor.data_ptr():
        tensor.copy_(dense)
