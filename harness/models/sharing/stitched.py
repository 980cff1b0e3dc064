"""A column per task, which exchange features stage by stage: what cross-stitch and sluice networks share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from harness.data.batches import Batch
from harness.data.joint_images import same_images
from harness.models.backbones.base import BackboneFeatures, Build
from harness.models.backbones.structure import Stage
from harness.models.config import ModelConfig
from harness.models.features import Features, FeatureShape
from harness.models.normalization import TaskStatistics
from harness.models.placeholders import Placeholders, TokenStream
from harness.models.sharing.lockstep import in_lockstep, meet
from harness.models.trunk import Trunk


class StitchedSharing(nn.Module):
    """A trunk per task; at chosen stages the trunks' features of the same image are mixed.

    The images of a task go through all columns, because mixing needs every column's features of them; the head of the
    task reads its own column. Images of equal size go through together, whatever task they belong to, and those that
    several tasks hold once for all of these, as with `HardSharing`.

    A unit that no head would see is not made: the last one is at a stage that a head reads, and it mixes only for
    the columns of tasks that do.

    Args:
        config: The model section.
        tasks: Names of the T tasks that need images.
        pooled_only: Those of them whose heads read the pooled feature only.
        build: Builds the backbone's model, see `ImageBackbone`; None: the library does.
        stages: At how many of a column's last stages features are mixed; of a plain transformer's blocks at so many,
            evenly spaced.

    """

    def __init__(
        self,
        config: ModelConfig,
        tasks: Sequence[str],
        pooled_only: Collection[str],
        build: Build | None,
        stages: int,
    ) -> None:
        super().__init__()
        self._tasks = tuple(tasks)
        self._pooled_only = frozenset(pooled_only)
        self.columns = nn.ModuleDict({task: Trunk(config, build and partial(_copied, build)) for task in tasks})
        self._alone = config.placeholders.sharing != "all"
        per_task = config.backbone.batch_norm == "per_task"
        self._statistics = TaskStatistics(self.columns, tasks) if per_task else None
        self.units = nn.ModuleDict()
        self._stitched: list[Stage] = []
        for stage, readers in self._stitches(stages) if len(tasks) > 1 else ():
            self._stitched.append(stage)
            self.units[_key(stage.module)] = self._unit(stage, readers)
            for task in tasks:
                body = self._trunk(task).backbone.body
                # Ahead of the hooks that hand features out, so that these see what was mixed.
                body.get_submodule(stage.module).register_forward_hook(_meeting(stage.module), prepend=True)

    @abstractmethod
    def _unit(self, stage: Stage, readers: Sequence[int]) -> nn.Module:
        """What mixes the columns after a stage: a module from T tensors to T tensors of the same shapes.

        Args:
            stage: Tells channels and where they are.
            readers: The columns, by number, whose mix goes on to a head.
        """

    @property
    def shape(self) -> FeatureShape:
        """Sizes of the features that heads get."""
        return self._trunk(self._tasks[0]).shape

    def sites(self) -> dict[str, int]:
        """Widths of the features at the exchange sites, by site; the columns, whose channels are mixed, share them."""
        return self._trunk(self._tasks[0]).backbone.sites

    def parts(self) -> dict[str, nn.Module]:
        """Columns and what mixes them, in parts that share no parameter."""
        found: dict[str, nn.Module] = {"stitches": self.units}
        for task in self._tasks:
            found |= {f"backbone {task}": self._trunk(task).backbone, f"neck {task}": self._trunk(task).neck}
        return found

    def forward(self, batches: Mapping[str, Batch], placeholders: Placeholders | None) -> dict[str, Features]:
        """Encode every task's images.

        Args:
            batches: By task.
            placeholders: The shared tokens, or None. Each column has copies of its own.

        Returns:
            Features by task.
        """
        features: dict[str, Features] = {}
        for group in self._groups(batches):
            if self._statistics is not None:
                self._statistics.select(group[0][0])
            first = [batches[tasks[0]] for tasks in group]
            images, contents = joined(first)
            samples = {tasks[0]: len(batch.ids) for tasks, batch in zip(group, first, strict=True)}
            mapped = sum(samples[tasks[0]] for tasks in group if not self._pooled_only.issuperset(tasks))
            streams = {task: placeholders.begin(samples) if placeholders is not None else None for task in self._tasks}
            remembered = first[0].remembered  # only where there is one column
            encoded = self._encode(streams, images, contents, mapped, remembered)
            start = 0
            for tasks in group:
                rows = slice(start, start + samples[tasks[0]])
                start = rows.stop
                for task in tasks:
                    features[task] = self._features(task, encoded[task], streams[task], rows)
        return features

    def _encode(
        self, streams: Mapping[str, TokenStream | None], images: Tensor, *others: Any
    ) -> dict[str, BackboneFeatures]:
        """Every column's features of the same images; see `ImageBackbone` for the other arguments."""
        runs = [partial(self._trunk(task).backbone, images, streams[task], *others) for task in self._tasks]
        found = in_lockstep(runs, lambda stage, values: self.units[_key(stage)](values))
        return dict(zip(self._tasks, found, strict=True))

    def _features(self, task: str, encoded: BackboneFeatures, stream: TokenStream | None, rows: slice) -> Features:
        """What a task's head reads of its column."""
        levels: dict[str, Tensor] = {}
        if task not in self._pooled_only:
            levels = self._trunk(task).neck({str(stride): level[rows] for stride, level in encoded.maps.items()})
        return Features(
            {int(stride): level for stride, level in levels.items()},
            encoded.pooled[rows],
            stream.rows(rows, task) if stream is not None else None,
        )

    def _groups(self, batches: Mapping[str, Batch]) -> list[list[list[str]]]:
        """What goes through the columns together: tasks of equal images, those first that need the pyramid."""
        if self._statistics is not None:
            return [[[task]] for task in batches]
        by_size: dict[torch.Size, list[list[str]]] = {}
        for task, batch in sorted(batches.items(), key=lambda item: item[0] in self._pooled_only):
            alike = by_size.setdefault(batch.images.shape[1:], [])
            twins = [tasks for tasks in alike if not self._alone and same_images(batches[tasks[0]], batch)]
            if twins:
                twins[0].append(task)
            else:
                alike.append([task])
        return list(by_size.values())

    def _stitches(self, count: int) -> Iterator[tuple[Stage, list[int]]]:
        """The stages after which columns are mixed, and for which of them."""
        backbone = self._trunk(self._tasks[0]).backbone
        stages = backbone.structure.stages
        plain = backbone.pyramid is not None
        coarsest = stages[-1].stride if plain else max(self.shape.strides)
        mapped = max(number for number, stage in enumerate(stages) if stage.stride == coarsest)
        deepest = [len(stages) - 1 if task in self._pooled_only else mapped for task in self._tasks]
        read = stages[: max(deepest) + 1]
        count = min(count, len(read))
        chosen = [(n + 1) * len(read) // count - 1 if plain else len(read) - count + n for n in range(count)]
        for number in chosen:
            last = number == chosen[-1]
            yield stages[number], [column for column, end in enumerate(deepest) if not last or end >= number]

    def _trunk(self, task: str) -> Trunk:
        trunk = self.columns[task]
        assert isinstance(trunk, Trunk)
        return trunk


def joined(batches: Sequence[Batch]) -> tuple[Tensor, Tensor | None]:
    """The images of several batches of one size, and their contents where any is padded."""
    images = torch.cat([batch.images for batch in batches])
    if all(batch.contents is None for batch in batches):
        return images, None
    whole = images.new_tensor(images.shape[-2:], dtype=torch.int64)
    parts = [batch.contents if batch.contents is not None else whole.expand(len(batch.ids), 2) for batch in batches]
    return images, torch.cat(parts)


def _copied(build: Build, growth: Mapping[str, Any]) -> nn.Module:
    """What is part of a larger model exists once; every column gets a copy."""
    return deepcopy(build(growth))


def _meeting(name: str) -> Callable[[nn.Module, object, Tensor], Tensor]:
    def hook(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        mixed: Tensor = meet(name, output)
        return mixed

    return hook


def _key(stage: str) -> str:
    """Names of modules hold dots, keys of a module dict must not."""
    return stage.replace(".", "/")
