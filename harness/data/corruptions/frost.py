"""Frost (Hendrycks & Dietterich 2019, appendix), with crystals that are drawn, not photographed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.data.corruptions.blur import moved
from harness.data.corruptions.pixels import Pixels, length_factor, to_pixels, unit
from harness.data.corruptions.weather import plasma

_TINT = np.array([0.86, 0.94, 1.0], dtype=np.float32)  # ice is a little blue
_BUNDLES = 5  # directions of needles
_LENGTH = 24.0  # of a needle, in pixels
_SEEDS = 0.012  # needles per pixel and direction


def frost(image: Pixels, severity: int, draw: np.random.Generator) -> Pixels:
    """The image and ice in front of it: a x + b f with ImageNet-C's a and b, and with the crystals f of `crystals`.

    ImageNet-C takes f from five photographs of frosted panes. They are not part of this package: numbers under this
    kind cannot be compared with those under ImageNet-C's frost.

    Args:
        image: uint8 [H, W, 3].
        severity: 1 to 5.
        draw: Random stream.
    """
    kept, added = ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[severity - 1]
    ice = crystals(image.shape[0], image.shape[1], length_factor(image), draw)
    return to_pixels(np.float32(kept) * unit(image) + np.float32(added) * ice)


def crystals(height: int, width: int, factor: float, draw: np.random.Generator) -> NDArray[np.float32]:
    """Ice on a pane: ridges of a plasma fractal, overgrown by bundles of needles.

    Args:
        height: H.
        width: W.
        factor: What lengths are multiplied by.
        draw: Random stream.

    Returns:
        float32 [H, W, 3] in [0, 1].
    """
    side = 1 << (max(height, width, 2) - 1).bit_length()
    film = plasma(side, 1.7, draw)[:height, :width]
    ridges = (1 - np.abs(2 * film - 1)) ** 2  # bright where the fractal passes its middle: branching lines
    length = _LENGTH * factor
    whole = np.exp(-0.5 * (np.arange(2 * np.ceil(length) + 1) / length) ** 2).sum()  # what `moved` divides by
    needles = np.zeros((height, width), dtype=np.float32)
    for angle in draw.uniform(-180, 180, _BUNDLES):
        seeds = (draw.random((height, width), dtype=np.float32) < _SEEDS).astype(np.float32)
        strengths = draw.random((height, width), dtype=np.float32)
        needles = np.maximum(needles, whole * moved(seeds * strengths, length, length, angle))
    ice = np.clip(0.15 + 0.45 * ridges + 0.5 * needles, 0, 1).astype(np.float32)
    found: NDArray[np.float32] = ice[:, :, None] * _TINT ** (1 - ice[:, :, None])  # the thickest ice is white
    return found
