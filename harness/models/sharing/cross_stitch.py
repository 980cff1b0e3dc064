"""Cross-stitch networks (Misra 2016, "Cross-Stitch Networks for Multi-task Learning", arXiv:1604.03539 §3)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from harness.models.backbones.base import Build
from harness.models.backbones.structure import Layout, Stage
from harness.models.config import ModelConfig
from harness.models.sharing.options import CrossStitchConfig
from harness.models.sharing.stitched import StitchedSharing

SPREAD: dict[Layout, tuple[int, ...]] = {"nchw": (-1, 1, 1), "nhwc": (-1,), "tokens": (-1,)}
OWN = 0.9  # what a column starts with of its own features; the others give the rest in equal shares


class CrossStitch(nn.Module):
    """x̃_t = Σ_s α_ts x_s, with an α for every channel (eq. 1; per channel as in §5.1).

    α starts at 0.9 on the diagonal and 0.1 / (T - 1) off it. Started at ones, features would grow T times larger at
    every unit.

    Args:
        columns: T > 1.
        channels: C.
        layout: Of the features that come.
        readers: Columns, by number, that are mixed; the others pass unchanged. Empty: all.
    """

    def __init__(self, columns: int, channels: int, layout: Layout = "nchw", readers: Sequence[int] = ()) -> None:
        super().__init__()
        self._readers = tuple(readers) or tuple(range(columns))
        self._spread = SPREAD[layout]
        self.alpha = nn.Parameter(initial(columns)[list(self._readers)][:, :, None].repeat(1, 1, channels))

    def forward(self, columns: Sequence[Tensor]) -> list[Tensor]:
        """Mix.

        Args:
            columns: T tensors of one shape, of the layout's.

        Returns:
            As many of the same shape.
        """
        found = list(columns)
        for alpha, reader in zip(self.alpha.to(columns[0].dtype), self._readers, strict=True):
            # Term by term, which keeps the memory layout of features, and takes no memory for a copy of all of them.
            terms = [weights.view(self._spread) * one for weights, one in zip(alpha, columns, strict=True)]
            found[reader] = sum(terms[1:], terms[0])
        return found


class CrossStitchSharing(StitchedSharing):
    """A trunk per task, mixed channel by channel after chosen stages (Misra 2016).

    Args:
        config: The model section.
        tasks: Names of the T tasks that need images. A single one makes a plain trunk.
        pooled_only: Those of them whose heads read the pooled feature only.
        build: Builds the backbone's model, see `ImageBackbone`; None: the library does.
    """

    def __init__(
        self, config: ModelConfig, tasks: Sequence[str], pooled_only: Collection[str], build: Build | None = None
    ) -> None:
        assert isinstance(config.sharing, CrossStitchConfig)
        super().__init__(config, tasks, pooled_only, build, config.sharing.stages)

    def _unit(self, stage: Stage, readers: Sequence[int]) -> nn.Module:
        return CrossStitch(len(self._tasks), stage.channels, stage.layout, readers)


def initial(size: int) -> Tensor:
    """Weights [size, size], 0.9 on the diagonal and 0.1 / (size - 1) off it, so that rows sum to 1."""
    return torch.eye(size) * OWN + (1 - torch.eye(size)) * (1 - OWN) / max(1, size - 1)
