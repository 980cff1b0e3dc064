"""How much a number drops on corrupted images, and how much better it is on training images, with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.metric import Result
from harness.evaluation.resampling import Interval, drawn_difference, require_comparable

DRAWS, SEED = 1000, 0  # as of boards and comparisons, so that drops of different records can be paired draw by draw


@dataclass(frozen=True)
class Drop:
    """The headline number on clean images minus its mean over corrupted versions of the same images.

    Attributes:
        values: The number of each corrupted version, in the order given; NaN where undefined.
        drop: Clean minus their mean.
        interval: 95%, over images: clean and corrupted versions are reduced under the same draws.
        relative: The drop as a share of the clean number; NaN where that is 0.
        draws: float64 [D], the drop on each draw of images.
    """

    values: list[float]
    drop: float
    interval: Interval
    relative: float
    draws: NDArray[np.float64]


def mean_drop(clean: Result, corrupted: Iterable[Result], draws: int = DRAWS, seed: int = SEED) -> Drop:
    """The mean drop over corruptions (the generalisation drop under shifts).

    Each version counts alike: with the same severities for every kind that is the mean over kinds of the mean over
    severities (Hendrycks & Dietterich 2019, section 4.1, without the division by another network's error).

    Args:
        clean: Statistics of the clean images.
        corrupted: Those of each version of the same images; read one at a time, so they may come from files.
        draws: Bootstrap draws.
        seed: Of the draws.

    Raises:
        HarnessError: A version is of other images, or there is none.
    """
    values: list[float] = []
    total = np.zeros(draws)
    for version in corrupted:
        require_comparable([clean, version])
        values.append(version.value)
        total += version.drawn(draws, seed)
    require_comparable([clean] if values else [])
    plain = clean.value
    drop = plain - math.fsum(values) / len(values)
    drawn = clean.drawn(draws, seed) - total / len(values)
    nothing = np.zeros((1, draws))
    interval = drawn_difference(([drop], drawn[None]), ([0.0], nothing), len(clean.ids), seed).interval
    return Drop(values, drop, interval, drop / plain if plain else math.nan, drawn)


@dataclass(frozen=True)
class Gap:
    """The headline number on training images minus that on test images.

    Attributes:
        gap: The difference.
        interval: 95%, over images of both.
        draws: float64 [D], the gap on each draw; draw by draw it pairs with that of another network on the same images.
    """

    gap: float
    interval: Interval
    draws: NDArray[np.float64]


def train_gap(train: Result, test: Result, draws: int = DRAWS, seed: int = SEED) -> Gap:
    """The headline number on training images minus that on test images, with its 95% interval.

    The images are other ones, so the two sides are drawn independently of each other.

    Args:
        train: Statistics of images that were trained on.
        test: Statistics of images that were not.
        draws: Bootstrap draws.
        seed: Of the draws.
    """
    sides = []
    for number, result in enumerate((train, test)):
        sides.append(([result.value], result.drawn(draws, seed + number)[None]))
    interval = drawn_difference(sides[0], sides[1], len(test.ids), seed).interval
    return Gap(interval.estimate, interval, sides[0][1][0] - sides[1][1][0])
