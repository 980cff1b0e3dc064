"""What a scene of the embedded suite holds: one large object, up to four small ones, drawn over a texture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.data.shapes.drawing import COLORS, FULL, SHAPES, SIZE, TILTS, Stream, background, coverage, expose

MIN_VISIBLE = 0.5  # share of an object that must be seen
MIN_DOMINANCE = 1.6  # the largest object's visible pixels over the next one's
_MAX_ATTEMPTS = 10_000


@dataclass(frozen=True)
class Object:
    """One object of a scene.

    Attributes:
        shape: One of `SHAPES`.
        color: One of `COLORS`.
        size: Nominal extent in pixels.
        tilt: Rotation in degrees.
        x: Left edge of its coverage mask, pixels.
        y: Top edge.
    """

    shape: str
    color: str
    size: int
    tilt: int
    x: int
    y: int

    @property
    def coverage(self) -> NDArray[np.uint8]:
        """uint8 [h, w], 0 to `FULL`."""
        return coverage(self.shape, self.size, self.tilt)

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the scene under the coverage mask."""
        height, width = self.coverage.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)

    @property
    def center(self) -> tuple[float, float]:
        """Middle of the object, x and y in pixels."""
        height, width = self.coverage.shape
        return self.x + width / 2, self.y + height / 2


@dataclass(frozen=True)
class Scene:
    """One scene.

    Attributes:
        objects: 1 to 5 objects, painted in this order (a later one hides an earlier one).
        instances: int8 [SIZE, SIZE], index of the object that covers at least half of the pixel, else -1.
        mixed: bool [SIZE, SIZE], pixels on an outline, that show two things at once.
        image: uint8 [SIZE, SIZE, 3], RGB.
    """

    objects: tuple[Object, ...]
    instances: NDArray[np.int8]
    mixed: NDArray[np.bool_]
    image: NDArray[np.uint8]

    @property
    def areas(self) -> NDArray[np.int64]:
        """Visible pixels of each object, int64 [N]."""
        return np.bincount(self.instances[self.instances >= 0], minlength=len(self.objects)).astype(np.int64)

    @property
    def largest(self) -> Object:
        """The object with the most visible pixels."""
        return self.objects[int(self.areas.argmax())]


def draw_scene(seed: int, split: int, index: int) -> Scene:
    """Draw one scene; it depends on nothing but the arguments.

    Args:
        seed: Seed of the suite.
        split: Number of the split.
        index: Number of the scene in the split.

    Returns:
        The scene. Its largest object's shape takes each value once in every eight scenes.
    """
    block = list(SHAPES)
    Stream(seed, split, index // len(SHAPES), 0).shuffle(block)
    stream = Stream(seed, split, index, 1)
    kinds = _contents(stream, block[index % len(SHAPES)])
    overlapping = stream.below(5) == 0
    for _ in range(_MAX_ATTEMPTS):
        objects = _place(stream, kinds, overlapping)
        if objects is not None:
            dominant = objects[0]
            stream.shuffle(objects)
            instances, mixed = _instances(objects)
            if _acceptable(objects, dominant, instances):
                return Scene(tuple(objects), instances, mixed, expose(_paint(objects, background(stream)), stream))
    raise AssertionError(f"no layout found for scene {index} of split {split} with seed {seed}")


def _contents(stream: Stream, shape: str) -> list[tuple[str, str]]:
    """Shape and colour of each object, the largest first.

    Scenes of independent objects hardly ever hold three or four alike; a part of the scenes repeats a shape or a
    colour so that questions that count have every answer.
    """
    colors = tuple(COLORS)
    count = stream.choice((1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 5, 5))
    shapes = [shape] + [stream.choice(SHAPES) for _ in range(4)]
    hues = [stream.choice(colors) for _ in range(5)]
    kind = stream.below(10)
    if kind < 6:
        alike = stream.between(2, 4)
        first = stream.between(0, 1)  # whether the largest object is one of those alike
        count = max(count, first + alike)
        row: list[str] = shapes if kind < 3 else hues
        row[first : first + alike] = [row[first]] * alike
    return list(zip(shapes[:count], hues[:count], strict=True))


def _place(stream: Stream, kinds: list[tuple[str, str]], overlapping: bool) -> list[Object] | None:
    """Sizes and places for the objects, or None if one found no room."""
    taken = np.zeros((SIZE, SIZE), dtype=np.bool_)
    objects: list[Object] = []
    for shape, color in kinds:
        size = stream.between(10, 19) if objects else stream.between(18, 32)
        tilt = stream.choice(TILTS)
        height, width = coverage(shape, size, tilt).shape
        for _ in range(20):
            x, y = stream.between(1, SIZE - 1 - width), stream.between(1, SIZE - 1 - height)
            # One pixel of air around objects that do not overlap.
            if overlapping or not taken[y - 1 : y + height + 1, x - 1 : x + width + 1].any():
                break
        else:
            return None
        objects.append(Object(shape, color, size, tilt, x, y))
        taken[objects[-1].window] |= objects[-1].coverage > 0
    return objects


def _instances(objects: list[Object]) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    instances = np.full((SIZE, SIZE), -1, dtype=np.int8)
    mixed = np.zeros((SIZE, SIZE), dtype=np.bool_)
    for number, item in enumerate(objects):
        cover, window = item.coverage, item.window
        instances[window][cover >= FULL // 2] = number
        mixed[window][cover > FULL * 7 // 8] = False
        mixed[window][(cover >= FULL // 8) & (cover <= FULL * 7 // 8)] = True
    return instances, mixed


def _acceptable(objects: list[Object], dominant: Object, instances: NDArray[np.int8]) -> bool:
    whole = np.array([np.count_nonzero(item.coverage >= FULL // 2) for item in objects])
    seen = np.bincount(instances[instances >= 0], minlength=len(objects))
    if (seen < MIN_VISIBLE * whole).any():
        return False
    others = [area for item, area in zip(objects, seen, strict=True) if item is not dominant]
    return not others or bool(seen.max() >= MIN_DOMINANCE * max(others))


def _paint(objects: list[Object], canvas: NDArray[np.int32]) -> NDArray[np.int32]:
    for item in objects:
        cover = item.coverage.astype(np.int32)
        padded = np.pad(cover, 1)
        neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
        rim = np.minimum.reduce([cover, *neighbours]) < FULL
        height, width = cover.shape
        slope = np.arange(height)[:, None] * 2 - height + np.arange(width)[None, :] * 2 - width
        shade = 256 - slope * 36 // (height + width) - rim * 44  # lit from the top left, with a darker rim
        color = np.array(COLORS[item.color], dtype=np.int32) * shade[:, :, None] >> 8
        under = canvas[item.window]
        canvas[item.window] = (under * (FULL - cover[:, :, None]) + color * cover[:, :, None]) // FULL
    return canvas
