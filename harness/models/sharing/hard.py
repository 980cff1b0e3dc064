"""Hard parameter sharing (Caruana 1993): one trunk for all tasks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from harness.data.batches import Batch
from harness.models.backbones.base import Build
from harness.models.config import ModelConfig
from harness.models.features import Features, FeatureShape
from harness.models.normalization import TaskStatistics
from harness.models.placeholders import Placeholders
from harness.models.sharing.config import HardConfig
from harness.models.sharing.fusion import LevelFusion
from harness.models.trunk import Trunk


class HardSharing(nn.Module):
    """One backbone and pyramid; images of equal size go through it together, whatever task they belong to.

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
        self.fusion: LevelFusion | None = None
        if isinstance(config.sharing, HardConfig) and config.sharing.fusion != "none" and set(tasks) - set(pooled_only):
            self.fusion = LevelFusion(self.shape, config.sharing.fusion)

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
        return found if self.fusion is None else found | {"fusion": self.fusion}

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
                self._statistics.select(group[0])
            together, contents, remembered = _joined([batches[task] for task in group])
            samples = {task: len(batches[task].ids) for task in group}
            stream = placeholders.begin(samples) if placeholders is not None else None
            pyramids = sum(len(batches[task].ids) for task in group if task not in self._pooled_only)
            encoded = self.trunk(together, stream, pyramids, contents, remembered)
            pyramid = encoded.pyramid if self.fusion is None else self.fusion(encoded.pyramid)
            start = 0
            for task in group:
                rows = slice(start, start + len(batches[task].ids))
                start = rows.stop
                features[task] = Features(
                    {stride: level[rows] for stride, level in pyramid.items()} if start <= pyramids else {},
                    encoded.pooled[rows],
                    stream.rows(rows, task) if stream is not None else None,
                )
        return features

    def _groups(self, batches: Mapping[str, Batch]) -> list[list[str]]:
        """Tasks that go through the network together, those that need the pyramid first."""
        if self._statistics is not None:
            return [[task] for task in batches]
        by_size: dict[tuple[object, ...], list[str]] = {}
        for task, batch in sorted(batches.items(), key=lambda item: item[0] in self._pooled_only):
            by_size.setdefault((*batch.images.shape[1:], batch.remembered is None), []).append(task)
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
