"""Label maps of images at full resolution: overlapping windows, and the way back to the original size."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.data.batches import SegmentationBatch
from harness.data.collation import MULTIPLE
from harness.models.network import MultiTaskNetwork

OVERLAP = 1 / 3  # of a window with the next, as is customary for Cityscapes


def slide(network: MultiTaskNetwork, name: str, batch: SegmentationBatch, window: tuple[int, int]) -> Tensor:
    """Average the logits of overlapping windows, as they are trained on.

    Windows lie at equal steps of two thirds of their size; the last of a row or column ends at the image's edge. Each
    is padded to a multiple of 32 and scored by itself; logits are averaged where windows overlap.

    Args:
        network: Predicts one window.
        name: The task's dataset name.
        batch: Images of one size, not padded.
        window: Height and width.

    Returns:
        float [B, C, H, W], logits.
    """
    size = (batch.images.shape[-2], batch.images.shape[-1])
    total = count = torch.zeros(())
    for top in _starts(size[0], window[0]):
        for left in _starts(size[1], window[1]):
            part = (..., slice(top, top + window[0]), slice(left, left + window[1]))
            images = batch.images[part]
            sides = images.shape[-2:]
            padded = F.pad(images, (0, -sides[1] % MULTIPLE, 0, -sides[0] % MULTIPLE))
            contents = None
            if padded.shape != images.shape:
                contents = batch.sizes.new_tensor(sides).expand(len(images), 2)
            found = network.predict(name, replace(batch, images=padded, contents=contents))
            logits = found[..., : sides[0], : sides[1]]
            if not total.dim():
                total = logits.new_zeros(*logits.shape[:2], *size)
                count = logits.new_zeros(size)
            total[part] += logits
            count[part] += 1
    return total / count


def _starts(side: int, window: int) -> list[int]:
    """Where windows begin along one side: as few as overlap enough, the last one at the end."""
    step = max(1, round(window * (1 - OVERLAP)))
    return sorted({min(start, max(0, side - window)) for start in range(0, max(1, side - window + step), step)})


def train_ids(logits: Tensor, sizes: Tensor, contents: Tensor | None) -> list[Tensor]:
    """The best class of every pixel at the original sizes.

    Args:
        logits: float [B, C, H, W], at the size of the batch's images.
        sizes: int64 [B, 2], height and width of the original images.
        contents: int64 [B, 2], height and width of the images without padding, or None.

    Returns:
        B tensors uint8 [H_i, W_i].
    """
    found = []
    for row, size in enumerate(sizes.tolist()):
        one = logits[row]
        if contents is not None:
            height, width = contents[row].tolist()
            one = one[:, :height, :width]
        if list(one.shape[-2:]) != size:
            one = F.interpolate(one[None], size, mode="bilinear", align_corners=False)[0]
        found.append(one.argmax(0).to(torch.uint8))
    return found
