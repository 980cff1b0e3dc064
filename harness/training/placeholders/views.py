"""Second views of images, on their device: geometry stays, so that every place of the output shows the same thing."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from harness.data.batches import Batch
from harness.data.transforms import derive_seed
from harness.models.features import padding_mask

FACTORS = (0.4, 1.6)  # of brightness, contrast and saturation (ours)
LARGEST_CUT = 0.5  # of the shorter side (Sohn 2020, appendix D: Cutout)
GREY = 0.5
_RED, _GREEN, _BLUE = 0.2989, 0.587, 0.114  # torchvision's weights of brightness


def strong(batch: Batch, *key: object) -> Tensor:
    """The images with other brightness, contrast and saturation, and a grey square cut out of each (DeVries 2017).

    The photometric operations are torchvision's `adjust_brightness`, `adjust_contrast` and `adjust_saturation` in this
    order, with factors of each image's own between 0.4 and 1.6. Hue is left alone: questions ask for colours. The
    square's side is up to half the image's shorter side, and its centre anywhere; the border cuts it.

    Args:
        batch: B images.
        key: What randomness is a function of, together with the image's id.

    Returns:
        uint8 [B, 3, H, W]. Nothing in an image depends on the other images, nor on its padding.
    """
    device, (height, width) = batch.images.device, batch.images.shape[-2:]
    rows = []
    for name in batch.ids:
        draw = random.Random(derive_seed("strong", *key, name))  # noqa: S311 - augmentation, not cryptography
        rows.append([*(draw.uniform(*FACTORS) for _ in range(3)), LARGEST_CUT * draw.random(), *_pair(draw)])
    drawn = torch.tensor(rows, dtype=torch.float32).to(device).T[:, :, None, None, None]  # [6, B, 1, 1, 1]
    brightness, contrast, saturation, cut, top, left = drawn
    inside = content(batch)
    found = (batch.images.contiguous().float() / 255 * brightness).clamp(0, 1)
    mean = (_grey(found) * inside).sum((2, 3), keepdim=True) / inside.sum((2, 3), keepdim=True)
    found = (contrast * found + (1 - contrast) * mean).clamp(0, 1)
    found = (saturation * found + (1 - saturation) * _grey(found)).clamp(0, 1)
    sides = _sizes(batch).float()[:, :, None, None, None]
    half = cut * sides.amin(1) / 2
    rows_at = torch.arange(height, device=device)[:, None] + 0.5
    columns_at = torch.arange(width, device=device) + 0.5
    hit = ((rows_at - top * sides[:, 0]).abs() < half) & ((columns_at - left * sides[:, 1]).abs() < half)
    return (torch.where(hit, GREY, found) * 255).round().to(torch.uint8)


def direction(batch: Batch, *key: object) -> Tensor:
    """A random direction of change for each image, of root mean square 1: float32 [B, 3, H, W].

    Args:
        batch: B images.
        key: What it is a function of, together with the image's id.
    """
    shape = batch.images.shape[1:]
    drawn = []
    for name in batch.ids:
        generator = torch.Generator().manual_seed(derive_seed("direction", *key, name))
        drawn.append(torch.randn(shape, generator=generator))
    return scaled(torch.stack(drawn).to(batch.images.device), batch)


def scaled(change: Tensor, batch: Batch) -> Tensor:
    """Changes float [B, 3, H, W] brought to root mean square 1 each over what is no padding; 0 stays 0."""
    inside = content(batch)
    change = change * inside
    count = change.shape[1] * inside.sum((1, 2, 3), keepdim=True)
    # Divided by its largest number first: squares of a tiny gradient would be 0 in float32.
    change = change / change.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(change.dtype).tiny)
    size = (change.square().sum((1, 2, 3), keepdim=True) / count).sqrt()
    return change / size.clamp(min=torch.finfo(change.dtype).tiny)


def content(batch: Batch) -> Tensor:
    """Float [B, 1, H, W], 1 where an image is no padding and 0 elsewhere."""
    size = (batch.images.shape[-2], batch.images.shape[-1])
    return (~padding_mask(_sizes(batch), size, size))[:, None].float()


def _sizes(batch: Batch) -> Tensor:
    """int64 [B, 2], height and width of every image without its padding."""
    if batch.contents is not None:
        return batch.contents
    return torch.tensor(batch.images.shape[-2:], device=batch.images.device).expand(len(batch.ids), 2)


def _pair(draw: random.Random) -> Sequence[float]:
    return draw.random(), draw.random()


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(1)
    return (_RED * red + _GREEN * green + _BLUE * blue)[:, None]
