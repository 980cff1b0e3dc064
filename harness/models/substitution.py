"""Substitution: parts of a task's features are replaced by what another task's head says about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from harness.data.batches import Batch
from harness.data.selecting import select
from harness.data.transforms import derive_seed
from harness.errors import HarnessError
from harness.models.features import Features
from harness.models.outputs import chosen, probabilities, resized

if TYPE_CHECKING:
    from harness.models.network import MultiTaskNetwork

Encoded = list[tuple[str, Features | None]]


def _one_fold(target: str, image: str) -> int:
    return 0


@dataclass(frozen=True)
class Choice:
    """What is replaced by what in one step. The same in every process.

    Attributes:
        seed: Of the run.
        step: Its number.
        ratio: ρ, the share of the positions.
        sources: For each target its source, or one for each fold of its images.
        fold: The fold of an image, by the target's name and the image's id.
        heads: Heads that stand in for the network's own, by source and fold; without any the network's own are asked.
        learn: Is given the features of each task of the step, as they are before anything is replaced, with its name,
            its batch and its share (see `MultiTaskNetwork.forward`), where gradients are wanted.
        watch: Is given target, source, float [N, C] features at all positions that the target's head reads, and float
            [N, C'] the output of the source's head there, for every pair, whatever is replaced.
    """

    seed: int
    step: int
    ratio: float
    sources: Mapping[str, Sequence[str]]
    fold: Callable[[str, str], int] = _one_fold
    heads: Mapping[tuple[str, int], nn.Module] = field(default_factory=dict)
    learn: Callable[[str, Features, Batch, float], None] | None = None
    watch: Callable[[str, str, Tensor, Tensor], None] | None = None


class Substitution(nn.Module):
    """X_M ← G_τ(sg O_τ) at a share ρ of the positions of the features that a task's head reads.

    O_τ are the probabilities that the head of task τ gives on the same features, G_τ is a 1x1 convolution to their
    width. Features are the pyramid's levels; for a head that reads the pooled feature it is this, a map of one
    position. No gradient reaches the source's head, which runs in evaluation mode, and nothing remembers that it ran.
    Without a `choice`, and in evaluation mode, features stay as they are.

    Who can be a source is a question of what there is to read. A VQA head needs questions and a zero-shot head the
    names of its classes: they are none. A head that reads the pyramid is a source for features with a pyramid that
    tasks share.

    Args:
        network: Whose heads and features. Weights are drawn from a random stream of their own.

    Attributes:
        pairs: For each target its possible sources, in the order of the submission.
        choice: What the next forward passes do; None: nothing.

    Raises:
        HarnessError: No task has a source.
    """

    choice: Choice | None = None

    def __init__(self, network: MultiTaskNetwork) -> None:
        super().__init__()
        self.pairs = _pairs(network)
        if not self.pairs:
            raise HarnessError(
                "training.placeholders.substitution: no task has another one whose output could stand for its features;"
                " sources are linear classifiers, detectors and segmenters, which must find in the other task's"
                " features what they read (docs/placeholders.md)"
            )
        shared: Any = network.shared
        specs = network.specs
        # Empty for who reads the pooled feature.
        self._strides = {name: _levels_of(network, name, shared.shape.strides) for name in self.pairs}
        if any(
            specs[target].task == "classification" != specs[source].task
            for target, sources in self.pairs.items()
            for source in sources
        ):
            shared.maps_for_all = True
        self.projections = nn.ModuleDict()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("substitution", torch.initial_seed()))
            for source in specs:
                targets = [target for target, sources in self.pairs.items() if source in sources]
                widths = {bool(self._strides[target]) for target in targets}
                if widths:
                    channels = cast(Any, network.heads[source]).output_channels(specs[source].classes)
                    self.projections[source] = nn.ModuleDict(
                        {
                            _kind(mapped): nn.Conv2d(
                                channels, shared.shape.channels if mapped else shared.shape.pooled_width, 1
                            )
                            for mapped in sorted(widths)
                        }
                    )

    def forward(
        self, encoded: Encoded, batches: Mapping[str, Batch], heads: nn.ModuleDict, shares: Mapping[str, float] | None
    ) -> Encoded:
        """Replace.

        Args:
            encoded: Features by task; None for a task without images.
            batches: By task.
            heads: By task.
            shares: See `MultiTaskNetwork.forward`.

        Returns:
            As `encoded`.
        """
        choice = self.choice
        if choice is None or not self.training:
            return encoded
        found: Encoded = []
        for name, features in encoded:
            if features is not None:
                if choice.learn is not None and torch.is_grad_enabled():
                    choice.learn(name, features, batches[name], 1.0 if shares is None else shares[name])
                if name in self.pairs:
                    features = self._replaced(name, features, batches[name], heads, choice)
            found.append((name, features))
        return found

    def _replaced(
        self, target: str, features: Features, batch: Batch, heads: nn.ModuleDict, choice: Choice
    ) -> Features:
        strides = self._strides[target]
        levels = [features.pyramid[stride] for stride in strides] or [features.pooled[:, :, None, None]]
        if choice.watch is not None:
            for source in self.pairs[target]:
                outputs = resized(probabilities(heads[source], features, batch), levels)
                choice.watch(target, source, _rows(levels), _rows(outputs))
        sources = choice.sources.get(target, ())
        if not sources or not choice.ratio:
            return features
        sizes = [(level.shape[2], level.shape[3]) for level in levels]
        masks = draw_positions((choice.seed, choice.step, target), batch.ids, sizes, choice.ratio)
        folds = [choice.fold(target, image) for image in batch.ids]
        for source in dict.fromkeys(sources):
            # Every part of a step goes through every source's G, whatever folds it has: processes must agree on which
            # weights take part.
            projection = cast(nn.Conv2d, cast(nn.ModuleDict, self.projections[source])[_kind(bool(strides))])
            if choice.heads:
                outputs = _of_folds(source, folds, features, batch, choice, levels, projection.in_channels)
            else:
                outputs = resized(probabilities(heads[source], features, batch), levels)
            here = torch.tensor([sources[fold % len(sources)] == source for fold in folds])[:, None, None, None]
            levels = [
                torch.where((mask & here).to(level.device), projection(output).to(level.dtype), level)
                for mask, output, level in zip(masks, outputs, levels, strict=True)
            ]
        if not strides:
            return replace(features, pooled=levels[0][:, :, 0, 0])
        return replace(features, pyramid=features.pyramid | dict(zip(strides, levels, strict=True)))


def draw_positions(
    key: Sequence[object], images: Sequence[str], sizes: Sequence[tuple[int, int]], ratio: float
) -> list[Tensor]:
    """M: which positions are replaced.

    Of the N positions of a map ρN are drawn, rounded up or down at random so that ρN is the mean. An image's draw
    follows from the key and its id alone, wherever in a batch or part of it the image is.

    Args:
        key: Of the stream.
        images: Ids of B images.
        sizes: Height and width of each map.
        ratio: ρ.

    Returns:
        bool [B, 1, h, w] for each map.
    """
    lengths = [1 + height * width for height, width in sizes]
    draws = torch.stack(
        [
            torch.rand(sum(lengths), generator=torch.Generator().manual_seed(derive_seed("substitution", *key, image)))
            for image in images
        ]
    )
    masks = []
    for values, (height, width) in zip(draws.split(lengths, dim=1), sizes, strict=True):
        count = (ratio * height * width + values[:, :1]).floor()
        ranks = values[:, 1:].argsort(dim=1, stable=True).argsort(dim=1)
        masks.append((ranks < count).view(-1, 1, height, width))
    return masks


def _of_folds(
    source: str,
    folds: Sequence[int],
    features: Features,
    batch: Batch,
    choice: Choice,
    levels: Sequence[Tensor],
    channels: int,
) -> list[Tensor]:
    """The source's output at every level, for each image from the head of its fold; 0 where that is another task's."""
    found = [level.new_zeros(level.shape[0], channels, *level.shape[2:], dtype=torch.float32) for level in levels]
    for fold in sorted(set(folds)):
        head = choice.heads.get((source, fold))
        if head is None:
            continue
        rows = [row for row, one in enumerate(folds) if one == fold]
        maps = probabilities(head, chosen(features, rows), _images(batch, rows))
        for whole, part in zip(found, resized(maps, [level[rows] for level in levels]), strict=True):
            whole[rows] = part
    return found


def _images(batch: Batch, rows: Sequence[int]) -> Batch:
    """Some images of a batch, without what is to be learned of them."""
    images = Batch(batch.ids, batch.images, batch.sizes, contents=batch.contents, remembered=batch.remembered)
    return select(images, rows)


def _pairs(network: MultiTaskNetwork) -> dict[str, tuple[str, ...]]:
    """For each target the tasks whose heads find in its features what they read; targets without any are left out."""
    shared: Any = network.shared
    pairs = {}
    for target, spec in network.specs.items():
        if network.reads(target) == "nothing":
            continue
        tapped = target in getattr(shared, "taps", ())
        pyramid = spec.task != "classification" or (hasattr(shared, "maps_for_all") and not tapped)
        sources = tuple(
            source
            for source, other in network.specs.items()
            if source != target
            and other.task != "vqa"
            and any(True for _ in network.heads[source].parameters())
            and (pyramid or other.task == "classification")
        )
        if sources:
            pairs[target] = sources
    return pairs


def _levels_of(network: MultiTaskNetwork, name: str, strides: Sequence[int]) -> tuple[int, ...]:
    """Which pyramid levels a task's head reads."""
    task = network.specs[name].task
    if task == "classification":
        return ()
    return (int(cast(Any, network.heads[name]).stride),) if task == "vqa" else tuple(strides)


def _kind(mapped: bool) -> str:
    return "maps" if mapped else "pooled"


def _rows(levels: Sequence[Tensor]) -> Tensor:
    """All positions of all levels, float [N, C]."""
    return torch.cat([level.detach().float().flatten(2).transpose(1, 2).flatten(0, 1) for level in levels])
