"""Customized sharing: every task has a shared trunk and one of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import nn

from harness.data.batches import Batch
from harness.models.backbones.base import Build
from harness.models.config import ModelConfig
from harness.models.features import Features
from harness.models.placeholders import Placeholders
from harness.models.sharing.columns import ColumnSharing
from harness.models.sharing.config import CustomizedConfig
from harness.models.sharing.hard import HardSharing
from harness.models.sharing.joining import FeatureProjection, summed


class CustomizedSharing(ColumnSharing):
    """A shared trunk and a trunk per task, with features of both summed, or concatenated and projected.

    The structure is that of Customized Sharing in Tang 2020 (fig. 1 c). Tokens go through the shared trunk, then
    through the task's.

    Args:
        config: The model section.
        tasks: Names of the T tasks that need images.
        pooled_only: Those of them whose heads read the pooled feature only.
        build: Builds the backbone's model, see `ImageBackbone`; None: the library does.
    """

    def __init__(
        self, config: ModelConfig, tasks: Sequence[str], pooled_only: Collection[str], build: Build | None = None
    ) -> None:
        super().__init__(config, tasks, pooled_only, build)
        assert isinstance(config.sharing, CustomizedConfig)
        self.bottom = HardSharing(config, tasks, pooled_only, build)
        joined = tasks if config.sharing.combine == "concat" else ()
        self.projections = nn.ModuleDict()
        for task in joined:
            pooled = task in pooled_only
            width = self.shape.pooled_width if pooled else self.shape.channels
            self.projections[task] = FeatureProjection(self.shape, pooled, [width], (1.0, 1.0))

    def sites(self) -> dict[str, int]:
        """Widths of the features at the sites of all trunks, by site."""
        return self.bottom.sites() | super().sites()

    def sites_of(self, task: str) -> dict[str, int]:
        """Those that a task's images meet."""
        return self.bottom.sites() | super().sites_of(task)

    def parts(self) -> dict[str, nn.Module]:
        """The trunks and what joins them, in parts that share no parameter."""
        return self.bottom.parts() | super().parts() | {"projections": self.projections}

    def forward(self, batches: Mapping[str, Batch], placeholders: Placeholders | None) -> dict[str, Features]:
        """See `ColumnSharing`."""
        found = {}
        for task, shared in self.bottom(batches, placeholders).items():
            own = self._column(task, batches[task], shared.stream)
            found[task] = self.projections[task]([own, shared]) if task in self.projections else summed(own, shared)
        return found
