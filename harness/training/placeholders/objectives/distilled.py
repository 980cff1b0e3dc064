"""Distillation: tokens made of what a frozen teacher, or another task, knows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn

from harness.data.batches import Batch
from harness.data.loading import TaskData
from harness.data.transforms import derive_seed
from harness.documents import Section
from harness.errors import HarnessError
from harness.models.network import MultiTaskNetwork
from harness.models.step_tokens import StepTokens
from harness.training.placeholders.objectives.config import DistilledConfig
from harness.training.placeholders.objectives.objective import Objective, Setting
from harness.training.placeholders.objectives.teacher import Teacher

START = 0.02  # root mean square of tokens at their start, whatever they start from
_CHUNK = 32  # images that the teacher sees at a time


class Distilled(Objective):
    """weight · (‖W z̄ - sg F‖² / C over images + Σ_t (‖μ_t - sg μ_m‖² + ‖σ_t - sg σ_m‖²) / d over tasks t ≠ m).

    First term, with a teacher: z̄ is the mean of an image's tokens after the backbone, W a linear map, and F [C] the
    teacher's pooled feature of the image, each coordinate with mean 0 and standard deviation 1 over the images that the
    centres were found on. Mean over images, then over tasks.

    Second term, with a main task m: μ_t and σ_t are mean and standard deviation, float [d], of the mean final tokens
    over a task's samples that a process sees at a time; m is not drawn to the others. A step without m has none.

    Source: the regression of a teacher's features is FitNets' (Romero et al. 2015, arXiv:1412.6550, eq. 3).

    Args:
        config: Teacher, main task and weight.
        setting: Tells seed, tasks and widths.

    Raises:
        HarnessError: The teacher cannot be had, or no task reads images.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: Section, setting: Setting) -> None:
        assert isinstance(config, DistilledConfig)
        super().__init__(config, setting)
        self._weight, self._main = config.weight, config.from_task
        self._images, self._setting = config.images, setting
        self._teacher: Teacher | None = None
        self.map: nn.Linear | None = None
        if config.teacher is not None:
            if setting.backbone is None:
                raise HarnessError(
                    "training.placeholders.distilled.teacher: teaches images, and no task reads any; leave it out"
                )
            self._teacher = Teacher(config.teacher, derive_seed("teacher", setting.seed))
            self.register_buffer("mean", torch.zeros(self._teacher.width))
            self.register_buffer("deviation", torch.ones(self._teacher.width))
            if config.weight:
                self.map = nn.Linear(setting.width, self._teacher.width)

    def forward(self, tokens: StepTokens) -> Tensor | None:
        """See `Objective`."""
        terms = []
        if self.map is not None and tokens.images:
            terms.append(tokens.mean_over_images(self._distances(tokens)))
        if self._main in tokens.ends and len(tokens.ends) > 1:
            samples = {task: ends.float().mean(1) for task, ends in tokens.ends.items()}
            terms.append(following(samples, str(self._main)) * tokens.part)
        return self._weight * torch.stack(terms).sum() if terms else None

    def _distances(self, tokens: StepTokens) -> dict[str, Tensor]:
        assert self._teacher is not None
        assert self.map is not None
        found = {}
        for task, images in tokens.images.items():
            wanted = (self._teacher(tokens.batches[task]) - self.mean) / self.deviation
            found[task] = (self.map(images.mean(1)).float() - wanted).square().mean()
        return found

    @torch.no_grad()
    def begin(self, network: MultiTaskNetwork, data: Mapping[str, TaskData]) -> None:
        """Let the tokens start as centres of the teacher's features; see `centres` and `as_tokens`.

        Every task gives as many training images, as its first epoch shows them. Where tasks have tokens of their own,
        those are centres of the task's own images.

        Raises:
            HarnessError: There are fewer images than tokens.
        """
        if self._teacher is None or network.placeholders is None:
            return
        features = {task: self._features(task, one) for task, one in data.items()}
        together = np.concatenate(list(features.values()))
        self.mean.copy_(torch.from_numpy(together.mean(0)))
        self.deviation.copy_(torch.from_numpy(np.maximum(together.std(0), 1e-6)))
        tokens = network.placeholders.bank.tokens
        own = self._setting.submission.model.placeholders.sharing == "per_task"
        sources = [features[task] for task in network.specs] if own else [together]
        count = tokens.shape[-2] // len(sources)
        draw = np.random.default_rng(derive_seed("centres", self._setting.seed))
        found = np.concatenate([centres(one, count, draw) for one in sources])
        tokens.copy_(torch.from_numpy(as_tokens(found, tokens.shape[-1], draw)))

    def _features(self, task: str, data: TaskData) -> NDArray[np.float64]:
        """The teacher's features, float [n, C], of training images drawn by seed."""
        assert self._teacher is not None
        draw = np.random.default_rng(derive_seed("images of a teacher", self._setting.seed, task))
        rows = np.sort(draw.permutation(len(data))[: self._images]).tolist()
        found = []
        for start in range(0, len(rows), _CHUNK):
            batch: Batch = data.batch([(0, row) for row in rows[start : start + _CHUNK]])
            found.append(self._teacher(batch.to(self.mean.device)).cpu().double().numpy())
        return np.concatenate(found)


def following(samples: Mapping[str, Tensor], main: str) -> Tensor:
    """Σ_t (‖μ_t - sg μ_m‖² + ‖σ_t - sg σ_m‖²) / d over the tasks t but the main one m.

    Args:
        samples: float [B_t, d] by task.
        main: m.
    """
    mean, deviation = (one.detach() for one in _moments(samples[main]))
    terms = []
    for task, one in samples.items():
        if task != main:
            its_mean, its_deviation = _moments(one)
            terms.append((its_mean - mean).square().mean() + (its_deviation - deviation).square().mean())
    return torch.stack(terms).sum()


def _moments(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of float [B, d]; samples without spread have a deviation with a gradient, too."""
    return samples.mean(0), torch.sqrt(samples.var(0, correction=0) + 1e-8)


def centres(features: NDArray[np.float64], count: int, draw: np.random.Generator) -> NDArray[np.float64]:
    """k-means centres: Lloyd's algorithm from a k-means++ start (Arthur & Vassilvitskii 2007).

    Args:
        features: float [n, C].
        count: K.
        draw: Random stream.

    Returns:
        float [K, C].

    Raises:
        HarnessError: There are fewer images than centres.
    """
    if len(features) < count:
        raise HarnessError(
            f"training.placeholders.distilled.images: {len(features)} images have no {count} centres; raise it, or"
            " lower model.placeholders.count"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a centre that lost all its images stays where it is
        found, _ = kmeans2(features, count, iter=50, minit="++", seed=draw)
    return np.asarray(found)


def as_tokens(points: NDArray[np.float64], width: int, draw: np.random.Generator) -> NDArray[np.float64]:
    """Points of a space of C dimensions as tokens of d, their distances kept up to one common factor.

    Centred, K points span at most min(K - 1, C) dimensions: their principal coordinates, of which a width of as many
    loses none, turned at random so that every coordinate of a token has its share, and scaled to the root mean square
    of a random start. A single point, which centred were 0, keeps its distance from the origin.

    Args:
        points: float [K, C].
        width: d.
        draw: Random stream.

    Returns:
        float [K, d].
    """
    centred = points - points.mean(0) if len(points) > 1 else points
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    coordinates: Any = (left * sizes)[:, :width]
    turn, _ = np.linalg.qr(draw.standard_normal((width, coordinates.shape[1])))
    tokens = coordinates @ turn.T
    size = float(np.sqrt(np.square(tokens).mean()))
    return np.asarray(tokens * (START / size if size else 0.0))
