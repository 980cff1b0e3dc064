"""Asymmetric sharing: some tasks read what others have learned, and give nothing back."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from harness.data.batches import Batch
from harness.errors import HarnessError, suggestion
from harness.models.backbones.base import Build
from harness.models.config import ModelConfig
from harness.models.features import Features, padding_of, pooled
from harness.models.placeholders import Placeholders
from harness.models.sharing.columns import ColumnSharing, begin
from harness.models.sharing.config import AsymmetricConfig
from harness.models.sharing.joining import FeatureProjection


class AsymmetricSharing(ColumnSharing):
    """A trunk per task; a task also reads its source tasks' features of its images, without gradient.

    h_t' = W [h_t; sg(h_s1); sg(h_s2); ...], a 1x1 convolution for every map that the head reads (compare the lateral
    connections of progressive networks; Rusu 2016). W starts as the identity on h_t and 0 on the rest.

    A source whose head reads the pooled feature only gives that, at every position of a map; to a task that reads the
    pooled feature only, other sources give the means of their pyramid's levels. The rest of a source's features has
    not learned anything.

    A source's trunk sees other tasks' images in evaluation mode, so that these do not move its statistics.

    Args:
        config: The model section.
        tasks: Names of the T tasks that need images.
        pooled_only: Those of them whose heads read the pooled feature only.
        build: Builds the backbone's model, see `ImageBackbone`; None: the library does.

    Raises:
        HarnessError: ``sources`` names something that is no other task with images.
    """

    def __init__(
        self, config: ModelConfig, tasks: Sequence[str], pooled_only: Collection[str], build: Build | None = None
    ) -> None:
        super().__init__(config, tasks, pooled_only, build)
        assert isinstance(config.sharing, AsymmetricConfig)
        self._sources = _sources(config.sharing, tasks)
        self.projections = nn.ModuleDict()
        for task, sources in self._sources.items():
            if sources:
                start = (1.0, *(0.0 for _ in sources))
                widths = [self._width(task, source) for source in sources]
                self.projections[task] = FeatureProjection(self.shape, task in pooled_only, widths, start)

    def parts(self) -> dict[str, nn.Module]:
        """The columns and what joins them, in parts that share no parameter."""
        return super().parts() | {"projections": self.projections}

    def forward(self, batches: Mapping[str, Batch], placeholders: Placeholders | None) -> dict[str, Features]:
        """See `ColumnSharing`."""
        # Before any column's statistics move, so that the order of tasks does not matter.
        others = {task: self._read(task, batch, placeholders) for task, batch in batches.items()}
        features = super().forward(batches, placeholders)
        return {
            task: self.projections[task]([own, *others[task]]) if others[task] else own
            for task, own in features.items()
        }

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _read(self, task: str, batch: Batch, placeholders: Placeholders | None) -> list[Features]:
        """What the source tasks' trunks make of a task's images, with the sources' tokens."""
        found = []
        for source in self._sources[task]:
            with torch.no_grad(), _evaluating(self._trunk(source)):
                stream = begin(placeholders, source, batch)
                found.append(self._as_read(task, source, self._column(source, batch, stream), batch))
        if found and torch.is_autocast_enabled(batch.images.device.type):
            # Torch before its pull request 165068 keeps weights that were cast here, without gradient, and takes them
            # again where the source learns: its trunk would not be trained.
            torch.clear_autocast_cache()
        return found

    def _as_read(self, task: str, source: str, features: Features, batch: Batch) -> Features:
        """In the form of what the task's head reads. Only what the source's head reads has learned anything."""
        if (task in self._pooled_only) == (source in self._pooled_only):
            return features
        if task in self._pooled_only:
            means = [pooled(level, padding_of(level, batch)) for level in features.pyramid.values()]
            return Features({}, torch.cat(means, 1), None)
        height, width = batch.images.shape[-2:]
        spread = features.pooled[:, :, None, None]
        sizes = {stride: (-(-height // stride), -(-width // stride)) for stride in self.shape.strides}
        return Features({stride: spread.expand(-1, -1, *size) for stride, size in sizes.items()}, features.pooled, None)

    def _width(self, task: str, source: str) -> int:
        """Of what `_as_read` gives."""
        if source in self._pooled_only:
            return self.shape.pooled_width
        return self.shape.channels * (len(self.shape.strides) if task in self._pooled_only else 1)


@contextmanager
def _evaluating(trunk: nn.Module) -> Iterator[None]:
    training = trunk.training
    trunk.eval()
    try:
        yield
    finally:
        trunk.train(training)


def _sources(config: AsymmetricConfig, tasks: Sequence[str]) -> dict[str, tuple[str, ...]]:
    if config.sources is None:
        return {task: tuple(tasks[:place]) for place, task in enumerate(tasks)}
    for task, sources in config.sources.items():
        for name in (task, *sources):
            if name not in tasks:
                raise HarnessError(
                    f"model.sharing.sources: {name!r} is not a task of this submission that reads images"
                    f"{suggestion(name, tasks)}"
                )
        if task in sources or len(set(sources)) < len(sources):
            raise HarnessError(
                f"model.sharing.sources: {task} has the sources {list(sources)}; name each other task once at most"
            )
    return {task: config.sources.get(task, ()) for task in tasks}
