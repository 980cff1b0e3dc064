"""Pixels of the embedded suite, equal on every machine.

Two rules make that hold. Random bits are PCG64's raw output, whose stream NumPy guarantees (NEP 19), mapped to ranges
here, because `Generator`'s methods may change between versions. And pixels come from integers and from +, -, * of
float64, which IEEE 754 rounds the same way everywhere: no sin, exp, power or floating-point sum.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import MutableSequence, Sequence
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

SIZE = 64  # pixels, both sides of a scene
SHAPES = ("circle", "cross", "diamond", "heart", "ring", "square", "star", "triangle")
COLORS = {
    "red": (219, 38, 43),
    "yellow": (245, 208, 32),
    "green": (47, 158, 58),
    "cyan": (64, 214, 219),
    "blue": (45, 92, 228),
    "purple": (164, 48, 196),
}
BACKGROUNDS = ("plain", "blobs", "stripes", "checks", "bricks", "speckle")
TILTS = range(-20, 21, 5)  # degrees
FULL = 16  # coverage of a pixel that lies wholly inside a shape: 4x4 samples

Item = TypeVar("Item")


class Stream:
    """Random numbers that are the same on every machine and NumPy version.

    Args:
        key: Non-negative integers that name the stream.
    """

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(key))

    def below(self, bound: int) -> int:
        """A whole number in [0, bound), bound up to 2**32."""
        return (int(self._bits.random_raw()) >> 32) * bound >> 32

    def between(self, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        return low + self.below(high - low + 1)

    def choice(self, items: Sequence[Item]) -> Item:
        """One of `items`."""
        return items[self.below(len(items))]

    def shuffle(self, items: MutableSequence[Item]) -> None:
        """Put `items` into random order, in place (Fisher and Yates)."""
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]

    def bytes(self, *shape: int) -> NDArray[np.int32]:
        """Whole numbers in [0, 255], int32 of the given shape."""
        count = math.prod(shape)
        raw = np.asarray(self._bits.random_raw(-(-count // 8)), dtype="<u8")
        return raw.view(np.uint8)[:count].reshape(shape).astype(np.int32)


def _polygon(*corners: tuple[float, float]) -> NDArray[np.float64]:
    return np.array(corners, dtype=np.float64)


# Corners in units of half the nominal size, y downwards. The star's are rounded values of cos and sin.
_POLYGONS = {
    "cross": _polygon(
        *((-0.34, -1), (0.34, -1), (0.34, -0.34), (1, -0.34), (1, 0.34), (0.34, 0.34)),
        *((0.34, 1), (-0.34, 1), (-0.34, 0.34), (-1, 0.34), (-1, -0.34), (-0.34, -0.34)),
    ),
    "diamond": _polygon((0, -1.1), (0.64, 0), (0, 1.1), (-0.64, 0)),
    "square": _polygon((-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)),
    "star": _polygon(
        *((0, -1.12), (0.276, -0.38), (1.065, -0.346), (0.447, 0.145), (0.658, 0.906)),
        *((0, 0.47), (-0.658, 0.906), (-0.447, 0.145), (-1.065, -0.346), (-0.276, -0.38)),
    ),
    "triangle": _polygon((0, -1.02), (1.06, 0.84), (-1.06, 0.84)),
}


@cache
def coverage(shape: str, size: int, tilt: int) -> NDArray[np.uint8]:
    """How much of each pixel a shape covers.

    Args:
        shape: One of `SHAPES`.
        size: Nominal extent in pixels.
        tilt: Rotation in degrees, one of `TILTS`.

    Returns:
        uint8 [h, w], 0 to `FULL`, cropped to the shape.
    """
    # Rounding to 1/4096 hides the last bit, in which libraries' cosines differ.
    cos, sin = (round(4096 * f(math.radians(tilt))) / 4096 for f in (math.cos, math.sin))
    side = size * 3 // 2 + 4
    side += (side - size) % 2
    samples = ((np.arange(4 * side, dtype=np.float64) * 2 + 1) / 4 - side) / size
    x, y = samples[None, :], samples[:, None]
    u, v = x * cos + y * sin, y * cos - x * sin
    inside = _inside(shape, u, v)
    counts = inside.reshape(side, 4, side, 4).sum(axis=(1, 3), dtype=np.uint8)
    rows, columns = np.flatnonzero(counts.any(1)), np.flatnonzero(counts.any(0))
    cropped = counts[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()
    cropped.setflags(write=False)  # cached: nobody may write into it
    return cropped


def _inside(shape: str, u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    if shape in ("circle", "ring"):
        distance = u * u + v * v
        return (distance <= 1) & ((shape == "circle") | (distance >= 0.27))
    if shape == "heart":  # (x² + y² - 1)³ <= x² y³
        x, y = u * 1.15, 0.12 - v * 1.15
        body = x * x + y * y - 1
        return body * body * body <= x * x * (y * y * y)
    corners = _POLYGONS[shape]
    inside = np.zeros(np.broadcast_shapes(u.shape, v.shape), dtype=np.bool_)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y0 != y1:  # even-odd rule: count the edges to the right
            inside ^= ((v < y0) != (v < y1)) & (u < x0 + (v - y0) * ((x1 - x0) / (y1 - y0)))
    return inside


def background(stream: Stream) -> NDArray[np.int32]:
    """A muted texture of one of the `BACKGROUNDS` families, int32 [SIZE, SIZE, 3]."""
    tone = stream.between(80, 190) + np.array([stream.between(-13, 13) for _ in range(3)])
    contrast = stream.between(12, 38) * stream.choice((-1, 1)) + np.array([stream.between(-6, 6) for _ in range(3)])
    blend = texture(stream, stream.choice(BACKGROUNDS))
    return (tone * 256 + contrast * blend[:, :, None]).astype(np.int32) >> 8


def texture(stream: Stream, family: str) -> NDArray[np.int32]:
    """Pattern of one of the `BACKGROUNDS` families: the blend of two tones, int32 [SIZE, SIZE], 0 to 256."""
    y, x = np.indices((SIZE, SIZE), dtype=np.int32)
    period = stream.between(4, 9)
    if family == "plain":
        return np.zeros((SIZE, SIZE), dtype=np.int32)
    if family == "blobs":
        return (_value_noise(stream, 16) * 2 + _value_noise(stream, 8)) // 3
    if family == "stripes":
        a, b = stream.choice(((1, 0), (0, 1), (1, 1), (1, -1), (2, 1), (1, 2), (2, -1), (1, -2)))
        return (a * x + b * y) // period % 2 * 256
    if family == "checks":
        return (x // period + y // period) % 2 * 256
    if family == "bricks":
        row = y // period
        return ((y % period == 0) | ((x + row % 2 * period) % (2 * period) == 0)).astype(np.int32) * 256
    return stream.bytes(SIZE // 2, SIZE // 2).repeat(2, 0).repeat(2, 1)


def _value_noise(stream: Stream, cell: int) -> NDArray[np.int32]:
    """Random values on a grid, joined by straight lines, 0 to 255."""
    grid = stream.bytes(SIZE // cell + 1, SIZE // cell + 1)
    index, part = np.divmod(np.arange(SIZE), cell)
    rows = grid[index] * (cell - part)[:, None] + grid[index + 1] * part[:, None]
    values = rows[:, index] * (cell - part) + rows[:, index + 1] * part
    return (values // (cell * cell)).astype(np.int32)


def expose(canvas: NDArray[np.int32], stream: Stream) -> NDArray[np.uint8]:
    """Light the scene from one side and add the sensor's noise.

    Args:
        canvas: int32 [SIZE, SIZE, 3], colours.
        stream: Random numbers.

    Returns:
        uint8 [SIZE, SIZE, 3].
    """
    offsets = np.arange(SIZE, dtype=np.int32) * 2 - (SIZE - 1)
    across, down = stream.between(-40, 40), stream.between(-40, 40)
    light = 256 + (across * offsets[None, :] + down * offsets[:, None]) // 128
    # The sum of four bytes is nearly normal, with a deviation of 148.
    noise = stream.bytes(4, SIZE, SIZE, 3).sum(axis=0, dtype=np.int32) - 510
    lit = (canvas * light[:, :, None] + noise * stream.between(3, 9)) >> 8
    return np.clip(lit, 0, 255).astype(np.uint8)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode without compression, so that the bytes are the same with every version of zlib.

    Args:
        pixels: uint8 [H, W] or [H, W, 3], less than 64 KB.

    Returns:
        A PNG file.

    Source: PNG specification (ISO/IEC 15948), RFC 1950 and 1951 (one stored block).
    """
    height, width = pixels.shape[:2]
    flat = pixels.reshape(height, -1)
    raw = np.concatenate([np.zeros((height, 1), np.uint8), flat], axis=1).tobytes()  # filter type 0 before each row
    block = b"\x01" + struct.pack("<HH", len(raw), len(raw) ^ 0xFFFF) + raw
    stream = b"\x78\x01" + block + struct.pack(">I", zlib.adler32(raw))
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), (b"IDAT", stream), (b"IEND", b""))
    )
