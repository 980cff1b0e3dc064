"""Boxes against their images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1.0  # pixels: COCO's own boxes leave their images by rounding


def check_boxes(boxes: NDArray[np.float64], sizes: NDArray[np.float64]) -> Iterator[tuple[str, int, str]]:
    """Boxes of no area, and boxes that leave their image by more than `TOLERANCE` pixels.

    Args:
        boxes: [N, 4], x, y, width and height in pixels from the image's upper left corner.
        sizes: [N, 2], width and height of each box's image; 0 where it is not known.

    Yields:
        Code of the finding, row of the box, and a sentence.
    """
    corners = boxes[:, 2:] + boxes[:, :2]
    empty = (boxes[:, 2:] <= 0).any(axis=1)
    beyond = (corners > sizes + TOLERANCE) & (sizes > 0)
    outside = ((boxes[:, :2] < -TOLERANCE) | beyond).any(axis=1)
    for row in np.flatnonzero(empty):
        yield "box-empty", int(row), f"the box {_text(boxes[row])} has no area; correct or remove it"
    for row in np.flatnonzero(outside):
        width, height = sizes[row]
        of = f" of {width:.0f} x {height:.0f} pixels" if width else ""
        yield "box-outside", int(row), f"the box {_text(boxes[row])} leaves the image{of}; correct it"


def _text(box: NDArray[np.float64]) -> str:
    return f"[{', '.join(f'{value:g}' for value in box)}]"
