"""Weather (Hendrycks & Dietterich 2019, appendix; constants of ImageNet-C)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from harness.data.corruptions.blur import moved
from harness.data.corruptions.pixels import Pixels, length_factor, to_pixels, unit

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


def fog(image: Pixels, severity: int, draw: np.random.Generator) -> Pixels:
    """(x + c p) m / (m + c) with the image's largest value m and a plasma fractal p in [0, 1].

    Args:
        image: uint8 [H, W, 3].
        severity: 1 to 5.
        draw: Random stream.
    """
    thickness, decay = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))[severity - 1]
    height, width = image.shape[:2]
    cloud = plasma(1 << (max(height, width, 2) - 1).bit_length(), decay, draw)[:height, :width, None]
    values = unit(image)
    largest = float(values.max())
    return to_pixels((values + thickness * cloud) * largest / (largest + thickness))


def snow(image: Pixels, severity: int, draw: np.random.Generator) -> Pixels:
    """A whitened image with two layers of flakes in motion, one the other turned round. Arguments as of `fog`."""
    mean, deviation, zoom, least, radius, spread, kept = (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )[severity - 1]
    factor = length_factor(image)
    layer = mean + deviation * draw.standard_normal(image.shape[:2], dtype=np.float32)
    layer = _enlarged(layer, max(1.0, zoom * factor))
    layer = np.where(layer < least, 0, np.clip(layer, 0, 1))
    layer = moved(layer, radius * factor, spread * factor, draw.uniform(-135, -45))[:, :, None]
    values = unit(image)
    whitened = np.maximum(values, (values @ _LUMA)[:, :, None] * 1.5 + 0.5)
    return to_pixels(kept * values + (1 - kept) * whitened + layer + np.rot90(layer, 2))


def plasma(size: int, decay: float, draw: np.random.Generator) -> NDArray[np.float64]:
    """A plasma fractal by midpoint displacement on a torus (diamond-square; Fournier et al. 1982).

    Args:
        size: Side, a power of two.
        decay: By what the displacements' range is divided from one scale to the next finer one (of its root: ranges are
            squares).
        draw: Random stream.

    Returns:
        float64 [size, size], from 0 to 1.
    """
    field = np.zeros((size, size))
    step, wibble = size, 100.0
    while step >= 2:
        half, reach = step // 2, wibble * wibble
        corners = field[::step, ::step]
        over = corners + np.roll(corners, -1, 0)
        centres = (over + np.roll(over, -1, 1)) / 4 + draw.uniform(-reach, reach, corners.shape)
        field[half::step, half::step] = centres
        above, beside = centres + np.roll(centres, 1, 0), centres + np.roll(centres, 1, 1)
        field[::step, half::step] = (above + corners + np.roll(corners, -1, 1)) / 4 + draw.uniform(
            -reach, reach, corners.shape
        )
        field[half::step, ::step] = (beside + corners + np.roll(corners, -1, 0)) / 4 + draw.uniform(
            -reach, reach, corners.shape
        )
        step, wibble = half, wibble / decay
    field -= field.min()
    return field / field.max()


def _enlarged(layer: NDArray[np.float32], zoom: float) -> NDArray[np.float32]:
    """The middle of a layer, enlarged to its size by linear interpolation."""
    height, width = layer.shape
    parts = [math.ceil(side / zoom) for side in layer.shape]
    top, left = ((side - part) // 2 for side, part in zip(layer.shape, parts, strict=True))
    large = ndimage.zoom(layer[top : top + parts[0], left : left + parts[1]], zoom, order=1)
    top, left = ((there - side) // 2 for there, side in zip(large.shape, layer.shape, strict=True))
    return large[top : top + height, left : left + width]
