"""What all corruptions share: how pixels become numbers and numbers pixels, and how long a length is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # [H, W, 3], RGB
Corrupt = Callable[[Pixels, int, np.random.Generator], Pixels]  # image, severity, random stream

REFERENCE = 224  # shorter edge of the images for which ImageNet-C states lengths in pixels


def unit(image: Pixels) -> NDArray[np.float32]:
    """Pixels as float32 in [0, 1]."""
    return image.astype(np.float32) / np.float32(255)


def to_pixels(values: NDArray[Any]) -> Pixels:
    """Numbers as pixels, rounded to the nearest (ImageNet-C's code cuts off, which darkens by half a level).

    Args:
        values: float, any shape; 0 is black and 1 full light, what lies outside is clipped.
    """
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def length_factor(image: Pixels) -> float:
    """What lengths in pixels are multiplied by: less than 1 where an image is smaller than ImageNet-C's.

    A blur of 6 pixels leaves nothing of an image of 64; Tiny ImageNet-C has shorter ones, too. Its shortest is half of
    ImageNet-C's, and so is ours: a blur of a quarter of a pixel is none. On larger images lengths stay as they are, as
    in COCO-C and Cityscapes-C (Michaelis et al. 2019).
    """
    return min(1.0, max(0.5, min(image.shape[:2]) / REFERENCE))
