"""Batch-norm statistics: of their own for each task, or over the images of all processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from timm.layers.norm_act import BatchNormAct2d, SyncBatchNormAct
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

_STATISTICS = ("running_mean", "running_var")  # the batch count matters only to cumulative averages (momentum None)

_SYNCHRONIZED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: nn.SyncBatchNorm,
    nn.BatchNorm2d: nn.SyncBatchNorm,
    nn.BatchNorm3d: nn.SyncBatchNorm,
    BatchNormAct2d: SyncBatchNormAct,
}


class TaskStatistics:
    """Gives every batch norm inside a module one set of running statistics per task.

    A network that is normalised by each task's own batches in training but by their mixture in evaluation sees inputs
    that it was never trained on as soon as the tasks' images differ (domain-specific batch norm; Chang 2019).

    Args:
        module: Its batch norms, of any subclass, are changed in place.
        tasks: Task names, in a fixed order.
    """

    def __init__(self, module: nn.Module, tasks: Sequence[str]) -> None:
        self._index = {task: index for index, task in enumerate(tasks)}
        self._norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        for norm in self._norms:
            for name in _STATISTICS:
                value = getattr(norm, name)
                for index in range(len(tasks)):
                    norm.register_buffer(f"{name}_{index}", value.clone())
                # The plain name becomes an alias of the current task's buffer, so it is not saved on its own.
                norm.register_buffer(name, value, persistent=False)
        self.select(tasks[0])

    def select(self, task: str) -> None:
        """Use `task`'s statistics from now on. Batch norms update them in place."""
        index = self._index[task]
        for norm in self._norms:
            for name in _STATISTICS:
                norm._buffers[name] = norm._buffers[f"{name}_{index}"]


def synchronize(module: nn.Module) -> None:
    """Let every batch norm inside a module normalise by the images of all processes (GPUs only).

    What torch's and timm's own converters give, but in place: weights, statistics of tasks, and the hooks by which
    features are read stay where they are. Batch norms of other subclasses stay as they are.
    """
    for one in module.modules():
        if type(one) in _SYNCHRONIZED:
            one.process_group = None  # type: ignore[assignment]
            one.__class__ = _SYNCHRONIZED[type(one)]


@contextmanager
def forgetful(module: nn.Module) -> Iterator[None]:
    """Batch norms in training normalise by the batch for the time of a block, as ever, but remember nothing of it."""
    norms = [one for one in module.modules() if isinstance(one, _BatchNorm) and one.training]
    norms = [one for one in norms if one.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
