"""Batches: what a step feeds the network, one dataclass per task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

PADDING = 0
UNKNOWN = 1
RESERVED = 2  # word i of a vocabulary has index i + RESERVED


@dataclass(frozen=True)
class Batch:
    """Images of one task.

    Attributes:
        ids: Image ids, B of them.
        images: uint8 [B, 3, H, W], RGB.
        sizes: int64 [B, 2], height and width of the original images in pixels.
        contents: int64 [B, 2], height and width of the part of `images` that is no padding, which lies to the right
            and below; None where nothing is padded.
        skipped: Sentences about images that could not be read and were replaced by others.
        remembered: int64 [B], where a frozen backbone's features of the images lie (`harness.models.feature_stores`);
            `images` has no pixels then, only their shape. None for images that are there.
    """

    ids: tuple[str, ...]
    images: Tensor
    sizes: Tensor
    contents: Tensor | None = field(default=None, kw_only=True)
    skipped: tuple[str, ...] = field(default=(), kw_only=True)
    remembered: Tensor | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.remembered is None and self.images.numel() > 1 and not any(self.images.stride()):
            raise ValueError("the images have no pixels, and it is not said where their features lie")

    def to(self, device: torch.device) -> Self:
        """The batch with all tensors on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def rows(self, start: int, stop: int) -> Self:
        """The images from `start` to `stop` with what belongs to them, padded as they are."""
        kept: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not None and one.name != "skipped":
                kept[one.name] = value[start:stop]
        return replace(self, **kept)

    def pin_memory(self) -> Self:
        """The batch in page-locked memory, from which GPUs copy faster; torch's loader calls this."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        moved: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name == "images" and self.remembered is not None:
                moved[one.name] = function(value[:1, :1, :1, :1]).expand(value.shape)
            elif isinstance(value, Tensor):
                moved[one.name] = function(value)
            elif isinstance(value, tuple) and value and isinstance(value[0], Tensor):
                moved[one.name] = tuple(function(item) for item in value)
        return replace(self, **moved)


@dataclass(frozen=True)
class ClassificationBatch(Batch):
    """Attributes: labels: int64 [B]."""

    labels: Tensor


@dataclass(frozen=True)
class DetectionBatch(Batch):
    """Boxes to learn from; crowd regions and boxes without area are left out.

    Attributes:
        boxes: B tensors float32 [N_i, 4], xyxy in pixels of `images`.
        labels: B tensors int64 [N_i], 0 to C-1.
    """

    boxes: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]


@dataclass(frozen=True)
class SegmentationBatch(Batch):
    """Attributes: masks: int64 [B, H, W], train ids, 255 = ignore."""

    masks: Tensor


@dataclass(frozen=True)
class VqaBatch(Batch):
    """Q questions about B images.

    Attributes:
        question_ids: int64 [Q].
        image_index: int64 [Q], which of the B images each question is about.
        words: int64 [Q, L], word indices, 0 = padding, 1 = unknown word.
        targets: float32 [Q, A], the official accuracy that each answer of the vocabulary would get.
        texts: The Q questions as they are written, for encoders with a tokenizer of their own.
    """

    question_ids: Tensor
    image_index: Tensor
    words: Tensor
    targets: Tensor
    texts: tuple[str, ...] = field(default=(), kw_only=True)

    def rows(self, start: int, stop: int) -> Self:
        """The images from `start` to `stop` and the questions about them."""
        asked = ((self.image_index >= start) & (self.image_index < stop)).nonzero()[:, 0]
        images = Batch(self.ids, self.images, self.sizes, contents=self.contents, remembered=self.remembered)
        return replace(
            self,
            **vars(images.rows(start, stop)) | {"skipped": self.skipped},
            question_ids=self.question_ids[asked],
            image_index=self.image_index[asked] - start,
            words=self.words[asked],
            targets=self.targets[asked],
            texts=tuple(self.texts[row] for row in asked.tolist()) if self.texts else (),
        )
