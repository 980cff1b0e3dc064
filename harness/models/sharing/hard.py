"""Hard parameter sharing (Caruana 1993): one trunk for all tasks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from harness.models.config import ModelConfig
from harness.models.features import Features, FeatureShape
from harness.models.normalization import TaskStatistics
from harness.models.placeholders import Placeholders
from harness.models.trunk import Trunk


class HardSharing(nn.Module):
    """One backbone and pyramid; images of equal size go through it together, whatever task they belong to.

    Going together, the tasks share batch-norm statistics; with ``batch_norm: per_task`` each task goes alone and has
    its own.

    Args:
        config: The model section.
        tasks: Names of the tasks that need images.
        pooled_only: Those of them whose heads read the pooled feature only; no pyramid is computed for them.
    """

    def __init__(self, config: ModelConfig, tasks: Sequence[str], pooled_only: Collection[str]) -> None:
        super().__init__()
        self._pooled_only = frozenset(pooled_only)
        self.trunk = Trunk(config)
        per_task = config.backbone.batch_norm == "per_task"
        self._statistics = TaskStatistics(self.trunk, tasks) if per_task else None

    @property
    def shape(self) -> FeatureShape:
        """Sizes of the features that heads get."""
        return self.trunk.shape

    def sites(self) -> dict[str, int]:
        """Widths of the features at the exchange sites, by site."""
        return self.trunk.backbone.sites

    def forward(self, images: Mapping[str, Tensor], placeholders: Placeholders | None) -> dict[str, Features]:
        """Encode every task's images.

        Args:
            images: uint8 [B_t, 3, H_t, W_t] by task.
            placeholders: The shared tokens, or None.

        Returns:
            Features by task.
        """
        features: dict[str, Features] = {}
        for group in self._groups(images):
            if self._statistics is not None:
                self._statistics.select(group[0])
            together = torch.cat([images[task] for task in group]) if len(group) > 1 else images[group[0]]
            stream = placeholders.begin(len(together)) if placeholders is not None else None
            pyramids = sum(len(images[task]) for task in group if task not in self._pooled_only)
            encoded = self.trunk(together, stream, pyramids)
            start = 0
            for task in group:
                rows = slice(start, start + len(images[task]))
                start = rows.stop
                features[task] = Features(
                    {stride: level[rows] for stride, level in encoded.pyramid.items()} if start <= pyramids else {},
                    encoded.pooled[rows],
                    stream.rows(rows) if stream is not None else None,
                )
        return features

    def _groups(self, images: Mapping[str, Tensor]) -> list[list[str]]:
        """Tasks that go through the network together, those that need the pyramid first."""
        if self._statistics is not None:
            return [[task] for task in images]
        by_size: dict[tuple[int, ...], list[str]] = {}
        for task, batch in sorted(images.items(), key=lambda item: item[0] in self._pooled_only):
            by_size.setdefault(tuple(batch.shape[1:]), []).append(task)
        return list(by_size.values())
