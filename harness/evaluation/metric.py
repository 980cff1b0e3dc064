"""The one idea of the evaluator: a metric is a weighted reduction of per-image statistics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

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
    def reduce(self, weights: NDArray[np.int64] | None = None) -> dict[str, float]:
        """All numbers of the metric.

        Args:
            weights: int64 [N] >= 0, how often each image counts; None means once.

        Returns:
            Number by name, fractions in [0, 1]; NaN where a number is undefined.
        """

    @abstractmethod
    def reduce_main(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        """The headline number for many weightings at once.

        Args:
            weights: int64 [D, N].

        Returns:
            float64 [D], entry d equal to ``reduce(weights[d])[main]``.
        """

    @abstractmethod
    def reduce_by(self, kind: str, weights: NDArray[np.int64]) -> tuple[list[str], NDArray[np.float64]]:
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

    @classmethod
    @abstractmethod
    def from_statistics(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The inverse of `statistics`.

        Raises:
            HarnessError: An array is missing, or has the wrong shape or dtype.
        """

    @classmethod
    @abstractmethod
    def merge(cls, shards: Sequence[Self]) -> Self:
        """Join shards by image id, in id order; an image that several shards hold counts once."""

    def interval(self, draws: int = 1000, seed: int = 0) -> Interval:
        """Bias-corrected 95% bootstrap interval of the headline number over images."""
        from harness.evaluation.resampling import single_interval

        return single_interval(self, draws=draws, seed=seed)
