"""Hard parameter sharing (Caruana 1993): one trunk for all tasks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from harness.data.batches import Batch
from harness.data.joint_images import same_images
from harness.errors import HarnessError, suggestion
from harness.models.backbones.base import Build
from harness.models.config import ModelConfig
from harness.models.features import Features, FeatureShape
from harness.models.normalization import TaskStatistics
from harness.models.placeholders import Placeholders
from harness.models.sharing.config import HardConfig
from harness.models.sharing.fusion import LevelFusion
from harness.models.sharing.taps import SerialTaps, StageTap
from harness.models.trunk import Trunk


class HardSharing(nn.Module):
    """One backbone and pyramid; images of equal size go through it together, whatever task they belong to.

    Images that several tasks hold go through it once, and the gradients of these tasks' losses add up.

    Going together, the tasks share batch-norm statistics; with ``batch_norm: per_task`` each task goes alone and has
    its own.

    Args:
        config: The model section.
        tasks: Names of the tasks that need images.
        pooled_only: Those of them whose heads read the pooled feature only; no pyramid is computed for them.
        build: Builds the backbone's model, see `ImageBackbone`; None: the library does.
    """

    def __init__(
        self, config: ModelConfig, tasks: Sequence[str], pooled_only: Collection[str], build: Build | None = None
    ) -> None:
        super().__init__()
        self._pooled_only = frozenset(pooled_only)
        self.trunk = Trunk(config, build)
        per_task = config.backbone.batch_norm == "per_task"
        self._statistics = TaskStatistics(self.trunk, tasks) if per_task else None
        self._alone = config.placeholders.differs_by_task
        self.fusion: LevelFusion | None = None
        self.chain: SerialTaps | None = None
        self.taps = nn.ModuleDict()
        self.maps_for_all = False  # in training, compute the pyramid for `pooled_only`, too
        if isinstance(config.sharing, HardConfig):
            self._add_options(config.sharing, tasks)

    def _add_options(self, options: HardConfig, tasks: Sequence[str]) -> None:
        reading_maps = [task for task in tasks if task not in self._pooled_only]
        if options.fusion != "none" and reading_maps:
            self.fusion = LevelFusion(self.shape, options.fusion)
        if options.taps == "serial":
            self.chain = SerialTaps(self.shape, tasks, self._pooled_only)
        channels = self.trunk.backbone.channels
        for task, stride in options.depths.items():
            place = f"model.sharing.depths.{task}"
            if task not in tasks:
                raise HarnessError(f"{place}: is no task that reads images{suggestion(task, tasks, '')}")
            if self.trunk.backbone.pyramid is not None:
                raise HarnessError(
                    f"{place}: {self.trunk.backbone.name} is a plain transformer, whose maps are all of its last block;"
                    " take a backbone with stages, or taps: serial"
                )
            if stride not in self.shape.strides:
                raise HarnessError(f"{place}: {stride} is not among model.neck.strides {list(self.shape.strides)}")
            self.taps[task] = StageTap(self.shape, channels, stride, task in self._pooled_only)
        # Maps are needed of whoever taps them.
        self._pooled_only = self._pooled_only.difference(options.depths)

    @property
    def needs_maps(self) -> bool:
        """Whether tasks that read the pooled feature may need maps all the same."""
        return bool(self.taps) or self.maps_for_all

    @property
    def shape(self) -> FeatureShape:
        """Sizes of the features that heads get."""
        return self.trunk.shape

    def sites(self) -> dict[str, int]:
        """Widths of the features at the exchange sites, by site."""
        return self.trunk.backbone.sites

    def parts(self) -> dict[str, nn.Module]:
        """What the tasks share, in parts that share no parameter."""
        found: dict[str, nn.Module] = {"backbone": self.trunk.backbone, "neck": self.trunk.neck}
        options = {"fusion": self.fusion, "chain": self.chain, "taps": self.taps}
        return found | {name: module for name, module in options.items() if module is not None}

    def forward(self, batches: Mapping[str, Batch], placeholders: Placeholders | None) -> dict[str, Features]:
        """Encode every task's images.

        Args:
            batches: By task.
            placeholders: The shared tokens, or None.

        Returns:
            Features by task.
        """
        features: dict[str, Features] = {}
        for group in self._groups(batches):
            if self._statistics is not None:
                self._statistics.select(group[0][0])
            first = [batches[tasks[0]] for tasks in group]
            together, contents, remembered = _joined(first)
            samples = {tasks[0]: len(batch.ids) for tasks, batch in zip(group, first, strict=True)}
            stream = placeholders.begin(samples) if placeholders is not None else None
            without = frozenset() if self.maps_for_all and self.training else self._pooled_only
            pyramids = sum(samples[tasks[0]] for tasks in group if not without.issuperset(tasks))
            encoded = self.trunk(together, stream, pyramids, contents, remembered)
            pyramid = encoded.pyramid if self.fusion is None else self.fusion(encoded.pyramid)
            start = 0
            for tasks in group:
                rows = slice(start, start + samples[tasks[0]])
                start = rows.stop
                levels = {s: level[rows] for s, level in pyramid.items()} if start <= pyramids else {}
                pooled = encoded.pooled[rows]
                maps = {s: level[rows] for s, level in encoded.maps.items()} if levels and self.taps else {}
                for task in tasks:
                    tokens = stream.rows(rows, task) if stream is not None else None
                    features[task] = self._tapped(Features(levels, pooled, tokens, maps), task)
        return features

    def _tapped(self, features: Features, task: str) -> Features:
        """What a task's head reads of the trunk's features."""
        if self.chain is not None:
            return cast(Features, self.chain(features, task))
        return cast(Features, self.taps[task](features)) if task in self.taps else features

    def _groups(self, batches: Mapping[str, Batch]) -> list[list[list[str]]]:
        """What goes through the network together: tasks of equal images, those first that need the pyramid.

        Tasks of the very same images stand together, for these are encoded once. Where a task has batch-norm statistics
        or tokens of its own, its features are its own, too.
        """
        if self._statistics is not None:
            return [[[task]] for task in batches]
        by_size: dict[tuple[object, ...], list[list[str]]] = {}
        for task, batch in sorted(batches.items(), key=lambda item: item[0] in self._pooled_only):
            alike = by_size.setdefault((*batch.images.shape[1:], batch.remembered is None), [])
            twins = [tasks for tasks in alike if not self._alone and same_images(batches[tasks[0]], batch)]
            if twins:
                twins[0].append(task)
            else:
                alike.append([task])
        return list(by_size.values())


def _joined(batches: Sequence[Batch]) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The images of several batches of one size, their contents where any is padded, and where their features lie."""
    if len(batches) == 1:
        return batches[0].images, batches[0].contents, batches[0].remembered
    rows = [batch.remembered for batch in batches if batch.remembered is not None]
    if rows:
        remembered = torch.cat(rows)
        return batches[0].images[:1].expand(len(remembered), -1, -1, -1), None, remembered
    images = torch.cat([batch.images for batch in batches])
    if all(batch.contents is None for batch in batches):
        return images, None, None
    whole = images.new_tensor(images.shape[-2:], dtype=torch.int64)
    parts = [batch.contents if batch.contents is not None else whole.expand(len(batch.ids), 2) for batch in batches]
    return images, torch.cat(parts), None
