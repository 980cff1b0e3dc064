"""Light, contrast, resolution and compression (Hendrycks & Dietterich 2019, appendix; constants of ImageNet-C)."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from harness.data.corruptions.pixels import Pixels, to_pixels, unit


def brightness(image: Pixels, severity: int, draw: np.random.Generator) -> Pixels:
    """V + c in HSV, hue and saturation as they were: all channels grow by the factor by which the largest one does.

    Args:
        image: uint8 [H, W, 3].
        severity: 1 to 5.
        draw: Not used.
    """
    values = unit(image)
    largest = values.max(axis=2, keepdims=True)
    brighter = np.minimum(largest + np.float32((0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1]), 1)
    scaled = values * (brighter / np.where(largest > 0, largest, 1))
    return to_pixels(np.where(largest > 0, scaled, brighter))  # black has no hue and becomes grey


def contrast(image: Pixels, severity: int, draw: np.random.Generator) -> Pixels:
    """μ + c (x - μ) with each channel's mean μ over the image. Arguments as of `brightness`."""
    share = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    # A sum of integers is the same on every machine, whichever way it is added up.
    means = image.sum(axis=(0, 1), dtype=np.int64) / (image.shape[0] * image.shape[1])
    return to_pixels(((image - means) * share + means) / 255)


def pixelate(image: Pixels, severity: int, draw: np.random.Generator) -> Pixels:
    """Reduced to a share of its sides by box averages, and enlarged again. Arguments as of `brightness`."""
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    height, width = image.shape[:2]
    small = max(1, int(width * share)), max(1, int(height * share))
    reduced = Image.fromarray(image).resize(small, Image.Resampling.BOX)
    return np.array(reduced.resize((width, height), Image.Resampling.BOX))


def jpeg(image: Pixels, severity: int, draw: np.random.Generator) -> Pixels:
    """Compressed as JPEG of a low quality. Arguments as of `brightness`."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=(25, 18, 15, 10, 7)[severity - 1])
    with Image.open(stream, formats=("JPEG",)) as compressed:
        return np.array(compressed)
