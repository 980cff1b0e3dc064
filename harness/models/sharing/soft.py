"""Soft parameter sharing: a trunk per task, kept alike by a penalty."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from harness.data.batches import Batch
from harness.models.backbones.base import Build
from harness.models.config import ModelConfig
from harness.models.features import Features
from harness.models.placeholders import Placeholders
from harness.models.sharing.columns import ColumnSharing
from harness.models.sharing.config import SoftConfig
from harness.models.sharing.likeness import NORMS


class SoftSharing(ColumnSharing):
    """A trunk per task, kept alike by a penalty on their weights (Duong 2015).

    A weight counts for the tasks whose features it takes part in: a neck that no head of the task reads would pull
    the others' towards its random start. What takes part is found in each task's first step, from the gradient's graph,
    and is in checkpoints.

    Args:
        config: The model section.
        tasks: Names of the T tasks that need images. With a single one the penalty is 0.
        pooled_only: Those of them whose heads read the pooled feature only.
        build: Builds the backbone's model, see `ImageBackbone`; None: the library does.
    """

    def __init__(
        self, config: ModelConfig, tasks: Sequence[str], pooled_only: Collection[str], build: Build | None = None
    ) -> None:
        super().__init__(config, tasks, pooled_only, build)
        assert isinstance(config.sharing, SoftConfig)
        self._coefficient = config.sharing.coefficient
        self._norm = NORMS[config.sharing.norm]
        self._reached: dict[str, frozenset[str]] = {}

    def forward(self, batches: Mapping[str, Batch], placeholders: Placeholders | None) -> dict[str, Features]:
        """See `ColumnSharing`."""
        features = super().forward(batches, placeholders)
        if torch.is_grad_enabled():
            for task in [task for task in features if task not in self._reached]:
                self._reached[task] = self._reach(task, features[task])
        return features

    def penalty(self, tasks: Collection[str]) -> Tensor:
        """Coefficient · Σ over weights of the norm of what the tasks have for it, a float32 scalar.

        Args:
            tasks: Of the step. Trunks of tasks that rest are kept alike with the others all the same.
        """
        total = next(self.parameters()).new_zeros(())
        with torch.autocast(total.device.type, enabled=False):
            for tasks, names in self._alike():
                rows = [[self._trunk(task).get_parameter(name).flatten() for name in names] for task in tasks]
                stacked = torch.stack([torch.cat(row) for row in rows])
                total = total + self._norm(stacked, [len(one) for one in rows[0]])
        return self._coefficient * total

    def memory(self) -> dict[str, list[str]]:
        """What was found out in steps that are done, which a resumed run must know: weights that count, by task."""
        return {task: sorted(names) for task, names in self._reached.items()}

    def remember(self, memory: Mapping[str, Sequence[str]]) -> None:
        """Restore `memory`."""
        self._reached = {task: frozenset(names) for task, names in memory.items()}

    def _alike(self) -> Iterator[tuple[list[str], list[str]]]:
        """Weights by name, with the tasks, two or more, that they count for."""
        groups: dict[tuple[str, ...], list[str]] = {}
        for name, _ in self._trunk(self._tasks[0]).named_parameters():
            tasks = tuple(task for task in self._tasks if name in self._reached.get(task, ()))
            groups.setdefault(tasks, []).append(name)
        yield from ((list(tasks), names) for tasks, names in groups.items() if len(tasks) > 1)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _reach(self, task: str, features: Features) -> frozenset[str]:
        read = [features.pooled] if task in self._pooled_only else list(features.pyramid.values())
        outputs = [one.sum() for one in read if one.requires_grad]
        named = {name: one for name, one in self._trunk(task).named_parameters() if one.requires_grad}
        if not outputs or not named:
            return frozenset()
        found = torch.autograd.grad(outputs, list(named.values()), retain_graph=True, allow_unused=True)
        return frozenset(name for name, gradient in zip(named, found, strict=True) if gradient is not None)
