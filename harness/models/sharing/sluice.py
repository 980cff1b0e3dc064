"""Sluice networks (Ruder 2019, "Latent Multi-task Architecture Learning", arXiv:1705.08142 §3)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import HarnessError
from harness.models.backbones.base import BackboneFeatures, Build
from harness.models.backbones.structure import Layout, Stage
from harness.models.config import ModelConfig
from harness.models.features import Features
from harness.models.placeholders import TokenStream
from harness.models.sharing.cross_stitch import initial
from harness.models.sharing.options import SluiceConfig
from harness.models.sharing.stitched import StitchedSharing

HALVES = 2
DIMENSION: dict[Layout, int] = {"nchw": 1, "nhwc": -1, "tokens": -1}


class SubspaceStitch(nn.Module):
    """x̃_ti = Σ_s Σ_j α_ti,sj x_sj over the halves i, j of the channels (eq. 1, whose matrix is [2T, 2T]).

    α starts at 0.9 on the diagonal and 0.1 / (2T - 1) off it.

    Args:
        columns: T.
        layout: Of the features that come.
        readers: Columns, by number, that are mixed; the others pass unchanged. Empty: all.
    """

    def __init__(self, columns: int, layout: Layout = "nchw", readers: Sequence[int] = ()) -> None:
        super().__init__()
        self._readers = tuple(readers) or tuple(range(columns))
        self._dimension = DIMENSION[layout]
        whole = initial(HALVES * columns).unflatten(0, (columns, HALVES))
        self.alpha = nn.Parameter(whole[list(self._readers)].clone())  # [readers, 2, 2T]

    def forward(self, columns: Sequence[Tensor]) -> list[Tensor]:
        """Mix.

        Args:
            columns: T tensors of one shape, of the layout's.

        Returns:
            As many of the same shape.
        """
        halves = [half for one in columns for half in one.chunk(HALVES, self._dimension)]
        found = list(columns)
        for weights, reader in zip(self.alpha.to(columns[0].dtype), self._readers, strict=True):
            terms = [[weight * half for weight, half in zip(row, halves, strict=True)] for row in weights]
            found[reader] = torch.cat([sum(row[1:], row[0]) for row in terms], self._dimension)
        return found


class LevelMix(nn.Module):
    """The β of a task: every level that its head reads is a weighted sum of all levels, brought to its size.

    The paper's head reads one weighted sum of all layers (eq. 2). A head of ours reads several levels, each of which
    starts with 0.9 of its own and 0.1 of the others.

    Args:
        levels: L of them.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.beta = nn.Parameter(initial(levels) if levels > 1 else torch.ones(1, 1))

    def forward(self, pyramid: dict[int, Tensor]) -> dict[int, Tensor]:
        """Mix float [B, C, h, w] by stride; returns the same shapes."""
        levels = list(pyramid.values())
        found = {}
        for row, (stride, level) in zip(self.beta.to(levels[0].dtype), pyramid.items(), strict=True):
            resized = [_resized(one, level) for one in levels]
            terms = [weight * one for weight, one in zip(row, resized, strict=True)]
            found[stride] = sum(terms[1:], terms[0])
        return found


class SluiceSharing(StitchedSharing):
    """A trunk per task, mixed by halves after chosen stages, and heads that read mixed levels (Ruder 2019).

    Args:
        config: The model section.
        tasks: Names of the T tasks that need images.
        pooled_only: Those of them whose heads read the pooled feature only: one level, which is not mixed.
        build: Builds the backbone's model, see `ImageBackbone`; None: the library does.

    Raises:
        HarnessError: A stage has an odd number of channels.
    """

    def __init__(
        self, config: ModelConfig, tasks: Sequence[str], pooled_only: Collection[str], build: Build | None = None
    ) -> None:
        assert isinstance(config.sharing, SluiceConfig)
        super().__init__(config, tasks, pooled_only, build, config.sharing.stages)
        self._coefficient = config.sharing.orthogonality
        mapped = [task for task in tasks if task not in pooled_only]
        self.levels = nn.ModuleDict({task: LevelMix(len(self.shape.strides)) for task in mapped})
        body = self._trunk(tasks[0]).backbone.body
        found = [_last_weight(body, stage.module, stage.channels) for stage in self._stitched]
        self._weights = [name for name in found if name is not None]

    def parts(self) -> dict[str, nn.Module]:
        """Columns and what mixes them, in parts that share no parameter."""
        return super().parts() | {"level mixes": self.levels}

    def penalty(self, tasks: Collection[str]) -> Tensor:
        """Coefficient · Σ_t Σ_layers ||G1ᵀ G2||²_F, a scalar (§3, "orthogonality constraint").

        A layer is the last one in a mixed stage that gives as many channels as the stage; a stage that only pools, or
        puts its channels together from several layers, has none.

        Args:
            tasks: Of the step. Its images go through the columns of all tasks, which all count.
        """
        columns = [self._trunk(task).backbone.body for task in self._tasks]
        zero = next(self.parameters()).new_zeros(())
        terms = [orthogonality(body.get_parameter(name)) for body in columns for name in self._weights]
        return self._coefficient * sum(terms, zero)

    def _unit(self, stage: Stage, readers: Sequence[int]) -> nn.Module:
        if stage.channels % HALVES:
            raise HarnessError(
                f"model.sharing.name: sluice halves the channels of every stage, but {stage.module} has"
                f" {stage.channels}; take another backbone, or fewer model.sharing.stages"
            )
        return SubspaceStitch(len(self._tasks), stage.layout, readers)

    def _features(self, task: str, encoded: BackboneFeatures, stream: TokenStream | None, rows: slice) -> Features:
        features = super()._features(task, encoded, stream, rows)
        if task not in self.levels:
            return features
        return Features(self.levels[task](features.pyramid), features.pooled, features.stream)


def orthogonality(weight: Tensor) -> Tensor:
    """||G1ᵀ G2||²_F, a scalar, where the columns of G1 and G2 are the weights that make each half's channels.

    Args:
        weight: float [C, ...], a row for each channel.
    """
    first, second = weight.flatten(1).chunk(HALVES)
    return (first @ second.T).square().sum()


def _last_weight(body: nn.Module, stage: str, channels: int) -> str | None:
    names = [
        f"{stage}.{name}"
        for name, parameter in body.get_submodule(stage).named_parameters()
        if parameter.dim() > 1 and parameter.shape[0] == channels
    ]
    return names[-1] if names else None


def _resized(level: Tensor, like: Tensor) -> Tensor:
    if level.shape == like.shape:
        return level
    return F.interpolate(level, like.shape[-2:], mode="bilinear", align_corners=False)
