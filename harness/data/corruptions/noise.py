"""Noise (Hendrycks & Dietterich 2019, appendix; constants of ImageNet-C). Each pixel and channel draws its own."""

from __future__ import annotations

import numpy as np

from harness.data.corruptions.pixels import Pixels, to_pixels, unit


def gaussian_noise(image: Pixels, severity: int, draw: np.random.Generator) -> Pixels:
    """The noise of dim light: x + N(0, σ²).

    Args:
        image: uint8 [H, W, 3].
        severity: 1 to 5.
        draw: Random stream.
    """
    deviation = np.float32((0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1])
    return to_pixels(unit(image) + deviation * draw.standard_normal(image.shape, dtype=np.float32))


def shot_noise(image: Pixels, severity: int, draw: np.random.Generator) -> Pixels:
    """Poisson(c x) / c: the noise of counting c photons at full light. Arguments as of `gaussian_noise`."""
    photons = (60, 25, 12, 5, 3)[severity - 1]
    return to_pixels(draw.poisson(unit(image) * photons) / photons)


def impulse_noise(image: Pixels, severity: int, draw: np.random.Generator) -> Pixels:
    """A share of the values becomes 0 or 255, each as often: bit errors. Arguments as of `gaussian_noise`."""
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    hit = draw.random(image.shape, dtype=np.float32) < share
    light = draw.random(image.shape, dtype=np.float32) < 0.5
    return np.where(hit, np.where(light, np.uint8(255), np.uint8(0)), image)
