"""What moves pixels (Hendrycks & Dietterich 2019, appendix; constants of ImageNet-C). Targets stay where they are.

Glass and zoom blur move pixels to and fro around their place, as a blur does; an elastic transform carries things away.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, ndimage

from harness.data.corruptions.pixels import REFERENCE, Pixels, length_factor, to_pixels, unit

Field = NDArray[np.float64]


def glass_blur(image: Pixels, severity: int, draw: np.random.Generator) -> Pixels:
    """Blurred, pixels swapped with others nearby, and blurred again: a pane of frosted glass.

    Pixels that cannot reach each other are swapped at the same time, not row by row, which would carry some of them far
    away. (ImageNet-C's code swaps views of an array and so copies one pixel over the other; here both stay.) As in
    ImageNet-C severity 2 has fewer rounds than 1: it blurs more and shuffles less.

    Args:
        image: uint8 [H, W, 3].
        severity: 1 to 5.
        draw: Random stream.
    """
    deviation, reach, rounds = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[severity - 1]
    factor = length_factor(image)
    blur = (deviation * factor, deviation * factor, 0)
    values = ndimage.gaussian_filter(unit(image), blur, mode="nearest")
    for _ in range(rounds):
        _swap(values, reach, factor, draw)
    return to_pixels(ndimage.gaussian_filter(values, blur, mode="nearest"))


def zoom_blur(image: Pixels, severity: int, draw: np.random.Generator) -> Pixels:
    """The mean of the image and of its middle, enlarged more and more: moving towards what is seen.

    Enlargements are shares of the image, so they are the same at every size. Arguments as of `glass_blur`.
    """
    step, count = ((0.01, 12), (0.01, 16), (0.02, 11), (0.02, 13), (0.03, 11))[severity - 1]
    values = unit(image)
    total = values.copy()
    for number in range(count):
        total += _enlarged(values, 1 + step * number)
    return to_pixels(total / (count + 1))


def elastic_transform(image: Pixels, severity: int, draw: np.random.Generator) -> Pixels:
    """Stretched as a whole (severities 1 and 2 most) and pulled about in parts (the more the higher the severity).

    Source of each pixel: A (x + d(x)) with d from `displacements` and A the affine map that takes three corners of a
    square, each moved at random, back to their places. The edge is mirrored. As in ImageNet-C severities 1 and 2 carry
    things further than those above, which tear at outlines instead. Arguments as of `glass_blur`.
    """
    pull, smooth, corner = _elastic(image, severity)
    height, width = image.shape[:2]
    rows, columns = displacements((height, width), pull, smooth, draw)
    middle = np.array([(height - 1) / 2, (width - 1) / 2])
    square = min(height, width) / 3
    places = middle + square * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = places + draw.uniform(-corner, corner, places.shape)
    back = np.linalg.solve(np.column_stack([moved, np.ones(3)]), places)  # [3, 2]: [y x 1] @ back is the source
    there = np.stack([rows + np.arange(height)[:, None], columns + np.arange(width)[None, :]])
    source = np.tensordot(back[:2].T, there, 1) + back[2][:, None, None]
    values = unit(image)
    channels = [ndimage.map_coordinates(values[..., n], source, order=1, mode="reflect") for n in range(3)]
    return to_pixels(np.stack(channels, axis=-1))


def displacements(shape: tuple[int, int], pull: float, smooth: float, draw: np.random.Generator) -> tuple[Field, Field]:
    """How far each pixel is pulled: `pull` times uniform noise in [-1, 1] under a Gaussian of deviation `smooth`.

    Args:
        shape: Height and width.
        pull: In pixels.
        smooth: In pixels; cut off at three deviations, the edge mirrored.
        draw: Random stream.

    Returns:
        Downwards and to the right, float64 [H, W] each, in pixels.
    """
    # Mirrored signals are sums of cosines, so a filter is a factor for each: exact, and quick for wide Gaussians.
    down, right = (_filter(side, smooth) for side in shape)
    both = [pull * fft.idctn(fft.dctn(draw.uniform(-1, 1, shape)) * np.outer(down, right)) for _ in range(2)]
    return both[0], both[1]


def _elastic(image: Pixels, severity: int) -> tuple[float, float, float]:
    """Pull and smoothing of `displacements`, and how far corners move, for an image of this size."""
    pull, smooth, corner = (
        (244 * 2, 244 * 0.7, 244 * 0.1),
        (244 * 2, 244 * 0.08, 244 * 0.2),
        (244 * 0.05, 244 * 0.01, 244 * 0.02),
        (244 * 0.07, 244 * 0.01, 244 * 0.02),
        (244 * 0.12, 244 * 0.01, 244 * 0.02),
    )[severity - 1]
    factor = length_factor(image)
    # Smoothed noise is `pull / smooth` long, so the square of the factor shortens it by the factor. Corners move by a
    # share of the image, however small that is.
    return pull * factor**2, smooth * factor, corner * min(1.0, min(image.shape[:2]) / REFERENCE)


def _filter(length: int, deviation: float) -> Field:
    """By what a truncated Gaussian multiplies each of a mirrored signal's `length` cosines."""
    steps = np.arange(1, int(3 * deviation + 0.5) + 1)
    weights = np.exp(-0.5 * (steps / deviation) ** 2)
    waves = np.cos(np.pi / length * np.outer(steps, np.arange(length)))
    found: Field = (1 + 2 * weights @ waves) / (1 + 2 * weights.sum())
    return found


def _swap(values: NDArray[np.float32], reach: int, factor: float, draw: np.random.Generator) -> None:
    """Swap every pixel in [H, W, 3] with one from -reach to reach - 1 pixels further, times `factor` on average."""
    height, width = values.shape[:2]
    shares = draw.integers(-reach, reach, (height, width, 2)) * factor
    steps = np.floor(shares + draw.random((height, width, 2))).astype(int)  # rounded at random, so that means stay
    margin = math.ceil(reach * factor)
    apart = 2 * margin + 1
    for top in range(margin, margin + apart):
        for left in range(margin, margin + apart):
            rows, columns = np.ix_(np.arange(top, height - margin, apart), np.arange(left, width - margin, apart))
            if not rows.size or not columns.size:
                continue
            down, right = np.moveaxis(steps[rows, columns], -1, 0)
            others = rows + down, columns + right
            here = values[rows, columns]
            values[rows, columns] = values[others]
            values[others] = here


def _enlarged(values: NDArray[np.float32], zoom: float) -> NDArray[np.float32]:
    """The middle of float32 [H, W, 3], enlarged to its size by linear interpolation."""
    height, width = values.shape[:2]
    top, left = (height - height / zoom) / 2, (width - width / zoom) / 2
    box = (left, top, width - left, height - top)
    channels = [
        np.asarray(Image.fromarray(values[..., n]).resize((width, height), Image.Resampling.BILINEAR, box=box))
        for n in range(3)
    ]
    return np.stack(channels, axis=-1)
