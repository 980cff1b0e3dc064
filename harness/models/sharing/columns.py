"""A trunk per task: what single, soft, asymmetric and customized sharing have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

from torch import nn

from harness.data.batches import Batch
from harness.models.backbones.base import Build
from harness.models.config import ModelConfig
from harness.models.features import Features, FeatureShape
from harness.models.placeholders import Edit, Placeholders, TokenStream
from harness.models.trunk import Trunk


class ColumnSharing(nn.Module):
    """A trunk of its own (a column) for each task, which only the task's images go through.

    Batch-norm statistics are a task's own, whatever ``batch_norm`` says. Columns with given weights all start from the
    same ones; otherwise each is drawn for itself, in the order of the tasks.

    Args:
        config: The model section.
        tasks: Names of the T tasks that need images.
        pooled_only: Those of them whose heads read the pooled feature only; no pyramid is computed for them.
        build: Builds the backbone's model, see `ImageBackbone`; None: the library does.
    """

    def __init__(
        self, config: ModelConfig, tasks: Sequence[str], pooled_only: Collection[str], build: Build | None = None
    ) -> None:
        super().__init__()
        self._tasks = tuple(tasks)
        self._pooled_only = frozenset(pooled_only)
        # What is part of a larger model exists once; every column gets a copy.
        self.columns = nn.ModuleDict({task: Trunk(config, build and partial(_copied, build)) for task in tasks})

    @property
    def shape(self) -> FeatureShape:
        """Sizes of the features that heads get."""
        return self._trunk(self._tasks[0]).shape

    def sites(self) -> dict[str, int]:
        """Widths of the features at the sites of all columns, by site."""
        return {site: width for task in self._tasks for site, width in self.sites_of(task).items()}

    def sites_of(self, task: str) -> dict[str, int]:
        """Those that a task's images meet."""
        return {f"{task}/{site}": width for site, width in self._trunk(task).backbone.sites.items()}

    def parts(self) -> dict[str, nn.Module]:
        """The columns, in parts that share no parameter."""
        found: dict[str, nn.Module] = {}
        for task in self._tasks:
            found |= {f"backbone {task}": self._trunk(task).backbone, f"neck {task}": self._trunk(task).neck}
        return found

    def forward(self, batches: Mapping[str, Batch], placeholders: Placeholders | None) -> dict[str, Features]:
        """Encode every task's images.

        Args:
            batches: By task.
            placeholders: The shared tokens, or None.

        Returns:
            Features by task.
        """
        return {
            task: self._column(task, task, batch, placeholders, begin(placeholders, task, batch))
            for task, batch in batches.items()
        }

    def _column(
        self, column: str, task: str, batch: Batch, placeholders: Placeholders | None, stream: TokenStream | None
    ) -> Features:
        """What a column makes of a task's images, and their tokens after it."""
        inside = None
        if placeholders is not None:
            assert stream is not None
            # Inside, sites have the names that the backbone knows, and are those of this column.
            sites, edit = _sites(placeholders, column), _edit(placeholders, column)
            inside = TokenStream(sites, stream.tokens, task=task, edit=edit)
        mapped = 0 if column in self._pooled_only else len(batch.ids)
        found = self._trunk(column)(batch.images, inside, mapped, batch.contents, batch.remembered)
        if placeholders is None or inside is None or stream is None:
            return Features(found.pyramid, found.pooled, None)
        visits = stream.visits + Counter({f"{column}/{site}": times for site, times in inside.visits.items()})
        outside = TokenStream(dict(placeholders.sites.items()), inside.tokens, visits, task, placeholders.edit)
        return Features(found.pyramid, found.pooled, outside)

    def _trunk(self, task: str) -> Trunk:
        trunk = self.columns[task]
        assert isinstance(trunk, Trunk)
        return trunk


def begin(placeholders: Placeholders | None, task: str, batch: Batch) -> TokenStream | None:
    """The tokens that a batch starts with, those of a task where tasks have their own."""
    return placeholders.begin({task: len(batch.ids)}) if placeholders is not None else None


def _sites(placeholders: Placeholders, column: str) -> dict[str, nn.Module]:
    prefix = f"{column}/"
    return {name.removeprefix(prefix): site for name, site in placeholders.sites.items() if name.startswith(prefix)}


def _edit(placeholders: Placeholders, column: str) -> Edit | None:
    """What looks at tokens is told which column's sites they are at."""
    edit = placeholders.edit
    return None if edit is None else lambda site, tokens: edit(f"{column}/{site}", tokens)


def _copied(build: Build, growth: Mapping[str, Any]) -> nn.Module:
    return deepcopy(build(growth))
