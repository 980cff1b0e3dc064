"""Stacking samples into batches, padded where their images differ in size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.data.batches import (
    PADDING,
    Batch,
    ClassificationBatch,
    DetectionBatch,
    SegmentationBatch,
    VqaBatch,
)
from harness.data.transforms import IGNORE

MULTIPLE = 32  # padded sizes, so that every backbone's strides divide them


def collate(items: list[dict[str, Any]], skipped: Sequence[str] = ()) -> Batch:
    """Stack the samples of one task into a batch.

    Args:
        items: As `TaskData` gives them; without label and questions they make a plain `Batch`. With a ``canvas`` they
            may differ in size: they are padded on the right and below to the largest, to the canvas, and to a multiple
            of 32.
        skipped: Sentences about images that were replaced.
    """
    first = items[0]
    contents = None
    if "canvas" in first:
        contents = torch.tensor([item["image"].shape[-2:] for item in items], dtype=torch.int64)
        size = [_padded([*contents[:, axis].tolist(), *(item["canvas"][axis] for item in items)]) for axis in (0, 1)]
        items = [_pad_sample(item, size) for item in items]
        if bool((contents == contents.new_tensor(size)).all()):
            contents = None
    common: dict[str, Any] = {
        "ids": tuple(item["id"] for item in items),
        "images": _stack([item["image"] for item in items]),
        "sizes": torch.tensor([item["size"] for item in items], dtype=torch.int64),
        "contents": contents,
        "skipped": tuple(skipped),
    }
    if "label" in first:
        return ClassificationBatch(**common, labels=torch.tensor([item["label"] for item in items]))
    if "mask" in first:
        return SegmentationBatch(**common, masks=torch.stack([item["mask"] for item in items]))
    if "boxes" in first:
        return DetectionBatch(
            **common, boxes=tuple(i["boxes"] for i in items), labels=tuple(i["labels"] for i in items)
        )
    if "words" not in first:
        return Batch(**common)
    counts = torch.tensor([len(item["words"]) for item in items])
    return VqaBatch(
        **common,
        question_ids=torch.from_numpy(np.concatenate([item["question_ids"] for item in items])),
        image_index=torch.repeat_interleave(torch.arange(len(items)), counts),
        words=_pad_words([words for item in items for words in item["words"]]),
        targets=torch.from_numpy(np.stack([target for item in items for target in item["targets"]])),
        texts=tuple(text for item in items for text in item["texts"]),
    )


def _stack(images: Sequence[Tensor]) -> Tensor:
    """[B, 3, H, W], in the memory layout of the images.

    Decoded and resized ones have their channels last; turning them takes ten times as long as copying them, in the
    processes where time is short.
    """
    if images[0].stride(0) == 1:
        return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)
    return torch.stack(list(images))


def enlarge(batch: Batch, size: tuple[int, int]) -> Batch:
    """Pad a batch further, to at least `size`, as if a larger image had been among its own."""
    old = (batch.images.shape[-2], batch.images.shape[-1])
    new = [max(sides) for sides in zip(old, size, strict=True)]
    if new == list(old):
        return batch
    items: dict[str, Any] = {"images": _pad(batch.images, new, 0)}
    if isinstance(batch, SegmentationBatch):
        items["masks"] = _pad(batch.masks, new, IGNORE)
    contents = batch.contents if batch.contents is not None else batch.sizes.new_tensor(old).repeat(len(batch.ids), 1)
    return replace(batch, **items, contents=contents)


def _padded(sides: Sequence[int]) -> int:
    return -(-max(sides) // MULTIPLE) * MULTIPLE


def _pad_sample(item: dict[str, Any], size: Sequence[int]) -> dict[str, Any]:
    padded = {"image": _pad(item["image"], size, 0)}
    if "mask" in item:
        padded["mask"] = _pad(item["mask"], size, IGNORE)
    return item | padded


def _pad(value: Tensor, size: Sequence[int], fill: int) -> Tensor:
    return F.pad(value, (0, size[1] - value.shape[-1], 0, size[0] - value.shape[-2]), value=fill)


def _pad_words(rows: Sequence[Sequence[int]]) -> Tensor:
    out = torch.full((len(rows), max(len(row) for row in rows)), PADDING, dtype=torch.int64)
    for index, row in enumerate(rows):
        out[index, : len(row)] = torch.tensor(row)
    return out
