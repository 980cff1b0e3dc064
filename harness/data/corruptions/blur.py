"""Blur (Hendrycks & Dietterich 2019, appendix; constants of ImageNet-C). Lengths follow `length_factor`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from harness.data.corruptions.pixels import Pixels, length_factor, to_pixels, unit


def gaussian_blur(image: Pixels, severity: int, draw: np.random.Generator) -> Pixels:
    """A Gaussian of 1 to 6 pixels' width; the edge is repeated outwards.

    Args:
        image: uint8 [H, W, 3].
        severity: 1 to 5.
        draw: Not used: every image is blurred alike.
    """
    deviation = (1, 2, 3, 4, 6)[severity - 1] * length_factor(image)
    return to_pixels(ndimage.gaussian_filter(unit(image), (deviation, deviation, 0), mode="nearest"))


def motion_blur(image: Pixels, severity: int, draw: np.random.Generator) -> Pixels:
    """A movement in a direction within 45 degrees of the horizontal. Arguments as of `gaussian_blur`."""
    radius, deviation = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    factor = length_factor(image)
    return to_pixels(moved(unit(image), radius * factor, deviation * factor, draw.uniform(-45, 45)))


def moved(values: NDArray[Any], radius: float, deviation: float, angle: float) -> NDArray[np.float32]:
    """Blur along a line, as ImageMagick's motion blur does: a Gaussian's one half, whole pixels, repeated edge.

    Args:
        values: float [H, W] or [H, W, 3].
        radius: The line has 2⌈radius⌉ + 1 pixels.
        deviation: Of the Gaussian, in pixels.
        angle: Of the line to the horizontal, in degrees.

    Returns:
        float32 of the same shape.
    """
    steps = np.arange(2 * math.ceil(radius) + 1)
    weights = np.exp(-(steps**2) / (2 * deviation**2))
    weights = (weights / weights.sum()).astype(np.float32)
    across, down = (
        np.ceil(steps * part - 0.5).astype(int)
        for part in (math.cos(math.radians(angle)), math.sin(math.radians(angle)))
    )
    height, width = values.shape[:2]
    # What lies further outside than the image is long is edge, too.
    margins = [(int(max(-way.min(), 0)), int(max(way.max(), 0))) for way in (down, across)]
    padded = np.pad(values.astype(np.float32), [*margins, *[(0, 0)] * (values.ndim - 2)], mode="edge")
    result = np.zeros(values.shape, dtype=np.float32)
    for weight, right, low in zip(weights, across + margins[1][0], down + margins[0][0], strict=True):
        result += weight * padded[low : low + height, right : right + width]
    return result
