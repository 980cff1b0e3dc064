"""The one idea of the evaluator: a metric is a weighted reduction of per-image statistics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.arrays import Weights, require_weights
from harness.evaluation.draws import draw_blocks

if TYPE_CHECKING:
    from harness.evaluation.resampling import Interval


class Result(ABC):
    """Per-image statistics of one set of predictions, and the numbers that follow from them.

    A subclass turns each image's predictions and ground truth into a small row once; every number is then
    `reduce(weights)`. Weights say how often each image counts, so the bootstrap, a subset and the plain number are
    one mechanism, and shards computed elsewhere merge by image id.

    Attributes:
        metric: Name of the metric, part of the protocol.
        version: Raised whenever the same predictions could give another number.
        main: Key of the headline number in `reduce`; all headline numbers are fractions, higher is better.
        breakdowns: What `reduce_by` can break the headline number down by.
        ids: str [N], the image ids, sorted and unique.
    """

    metric: ClassVar[str]
    version: ClassVar[int]
    main: ClassVar[str]
    breakdowns: ClassVar[tuple[str, ...]]

    ids: NDArray[np.str_]

    @property
    def order(self) -> NDArray[np.intp]:
        """Rank of each image in the order that decides ties between images, intp [N]."""
        return np.arange(len(self.ids))

    @abstractmethod
    def reduce(self, weights: Weights | None = None) -> dict[str, float]:
        """All numbers of the metric.

        Args:
            weights: int64 [N] >= 0, how often each image counts; None means once.

        Returns:
            Number by name, fractions in [0, 1]; NaN where a number is undefined.
        """

    @abstractmethod
    def reduce_main(self, weights: Weights) -> NDArray[np.float64]:
        """The headline number for many weightings at once.

        Args:
            weights: int64 [D, N].

        Returns:
            float64 [D], entry d equal to ``reduce(weights[d])[main]``.
        """

    @abstractmethod
    def reduce_by(self, kind: str, weights: Weights) -> tuple[list[str], NDArray[np.float64]]:
        """The headline number of each part of the data, for many weightings at once.

        Args:
            kind: One of `breakdowns`.
            weights: int64 [D, N].

        Returns:
            G names, and float64 [D, G], NaN where a part's number is undefined.
        """

    @abstractmethod
    def per_class(self) -> dict[str, float]:
        """The headline number broken down by class (VQA: by answer type and question type)."""

    @property
    @abstractmethod
    def statistics(self) -> dict[str, NDArray[Any]]:
        """Everything that `reduce` depends on, as plain arrays (no objects), `ids` included."""

    def shared(self) -> dict[str, NDArray[Any]]:
        """What all results under one protocol have in common besides images, e.g. the classes."""
        return {}

    @abstractmethod
    def ground_truth(self) -> dict[str, NDArray[Any]]:
        """What follows from the ground truth alone: the same for all predictions of the same images."""

    @classmethod
    @abstractmethod
    def from_statistics(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The inverse of `statistics`.

        Raises:
            HarnessError: An array is missing, has the wrong shape or dtype, or contradicts another one.
        """

    @classmethod
    @abstractmethod
    def merge(cls, shards: Sequence[Self]) -> Self:
        """Join shards by image id, in id order; an image that several shards hold counts once."""

    @cached_property
    def value(self) -> float:
        """The headline number."""
        return float(self.reduce_main(np.ones((1, len(self.ids)), np.int64))[0])

    @cached_property
    def kept_draws(self) -> dict[tuple[int, int], NDArray[np.float64]]:
        """What `drawn` gave, by draws and seed: the same for all comparisons with others."""
        return {}

    def drawn(self, draws: int, seed: int) -> NDArray[np.float64]:
        """The headline number of each draw of the bootstrap, float64 [D]."""
        if (draws, seed) not in self.kept_draws:
            blocks = [self.reduce_main(weights) for weights in draw_blocks(len(self.ids), draws, seed)]
            self.kept_draws[draws, seed] = np.concatenate(blocks)
        return self.kept_draws[draws, seed]

    def interval(self, draws: int = 1000, seed: int = 0) -> Interval:
        """Bias-corrected 95% bootstrap interval of the headline number over images."""
        from harness.evaluation.resampling import single_interval

        return single_interval(self, draws=draws, seed=seed)


class SummedResult(Result):
    """A result whose headline number follows from sums over images, as accuracies and mean IoU do, and AP does not.

    Resampling is then one matrix product. It is in float64, and exact: sums of whole numbers below 2**53 are the same
    in any order.
    """

    @abstractmethod
    def by_image(self) -> NDArray[np.float64]:
        """What each image adds to each sum, float64 [N, C], whole numbers."""

    @abstractmethod
    def number_of(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """The headline number of many sums at once: float64 [D] of float64 [D, C]; NaN where it is undefined."""

    @cached_property
    def image_sums(self) -> NDArray[np.float64]:
        """`by_image`, made once."""
        return self.by_image()

    def reduce_main(self, weights: Weights) -> NDArray[np.float64]:
        """The headline number for int64 [D, N] weightings."""
        w = require_weights(weights, len(self.ids))
        return self.number_of(w.astype(np.float64) @ self.image_sums)
