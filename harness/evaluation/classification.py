"""Image classification: top-1, top-5 and macro averages from integer counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.errors import HarnessError
from harness.evaluation.arrays import (
    Weights,
    checked_weights,
    grouped_sums,
    ratio,
    require,
    same,
    sorted_ids,
    stored,
    stored_ids,
    union,
    within,
)
from harness.evaluation.metric import SummedResult

_UNKNOWN = -1  # rank of a label below the predicted class when only predicted classes were given; label of a label set
_CELLS = 1 << 24  # scores compared at once
_NO_REAL = -1  # in `real`: no class is acceptable for the image


def evaluate(
    labels: ArrayLike | Sequence[Sequence[int]],
    scores: ArrayLike,
    ids: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    real: Sequence[Sequence[int]] | None = None,
) -> ClassificationResult:
    """Score one prediction per image.

    Ties: a label's rank is the number of classes that score strictly higher, plus those that score the same and have a
    smaller index; an image is correct at k if the rank is below k. (The order in which a stable descending sort puts
    them; it does not depend on the machine, as `torch.topk`'s does.)

    Args:
        labels: int [N], class indices. Or one list of acceptable class indices per image, as ReaL has them (Beyer et
            al. 2020, "Are we done with ImageNet?"): the best-ranked one counts, images with an empty list are dropped,
            and macro averages are undefined.
        scores: float [N, C], any monotone scores such as logits. Or int [N], predicted class indices; top-5 is then
            undefined.
        ids: One id per image; None numbers the images in order.
        classes: Names of the C classes; None numbers them.
        real: For a second accuracy ``real`` beside top-1: one list of acceptable class indices per image, as above.

    Raises:
        HarnessError: Lengths disagree, a score is NaN or infinite, a label is not a class, or an id appears twice.
    """
    values = np.asarray(scores)
    if values.ndim == 2:
        if values.dtype.kind not in "fiu":
            raise HarnessError(f"scores: dtype {values.dtype}; numbers [N, C] or class indices [N] are required")
        count = values.shape[1]
    elif values.ndim == 1 and (values.dtype.kind in "iu" or values.size == 0):
        values = values.astype(np.int64)
        count = 0
    else:
        raise HarnessError(
            f"scores: shape {list(values.shape)} and dtype {values.dtype}; numbers [N, C] or class indices [N] are "
            "required"
        )
    sets = _label_sets(labels)
    if len(sets) != len(values):
        raise HarnessError(f"scores: {len(values)} rows for {len(sets)} labels; one row per image is required")
    if ids is None:
        ids = [f"{n:08d}" for n in range(len(values))]
    if len(ids) != len(values):
        raise HarnessError(f"ids: {len(ids)} for {len(values)} images; one id per image is required")
    flat = np.array([label for one in sets for label in one], dtype=np.int64)
    if values.ndim == 1:  # predicted classes: as many classes as are named, or as occur
        count = len(classes) if classes is not None else int(max(flat.max(initial=-1), values.max(initial=-1))) + 1
        outside = np.flatnonzero((values < 0) | (values >= count))
        if len(outside):
            raise HarnessError(f"scores[{outside[0]}]: class {values[outside[0]]} is not between 0 and {count - 1}")
    if classes is None:
        classes = [str(n) for n in range(count)]
    if len(classes) != count:
        raise HarnessError(f"scores: {count} columns, but there are {len(classes)} classes")
    if len(flat) and not 0 <= flat.min() <= flat.max() < count:
        row, wrong = next((n, label) for n, one in enumerate(sets) for label in one if not 0 <= label < count)
        raise HarnessError(f"labels[{row}]: class {wrong} is not between 0 and {count - 1}")
    kept = np.array([n for n, one in enumerate(sets) if len(one)], dtype=np.intp)
    several = not isinstance(sets, _Single)
    rows = np.repeat(np.arange(len(kept)), [len(sets[n]) for n in kept])
    ranks, predicted = _ranks(values[kept], rows, flat)
    rank = np.full(len(kept), np.iinfo(np.int32).max, dtype=np.int32)
    np.minimum.at(rank, rows, ranks)
    rank[rank == np.iinfo(np.int32).max] = _UNKNOWN
    label = np.full(len(kept), _UNKNOWN, dtype=np.int32) if several else flat.astype(np.int32)
    names, order = sorted_ids([str(ids[n]) for n in kept])
    hits = None if real is None else _real_hits(real, len(sets), predicted, kept)[order]
    return ClassificationResult(
        names, np.asarray(classes, dtype=np.str_), label[order], predicted[order], rank[order], hits
    )


def _real_hits(
    real: Sequence[Sequence[int]], images: int, predicted: NDArray[np.int32], kept: NDArray[np.intp]
) -> NDArray[np.int8]:
    """Whether each kept image's predicted class is among its acceptable ones: 1, 0, or `_NO_REAL` for no classes."""
    if len(real) != images:
        raise HarnessError(f"real: {len(real)} label sets for {images} images; one per image is required")
    sets = [real[n] for n in kept]
    hits = [int(found in one) if len(one) else _NO_REAL for found, one in zip(predicted.tolist(), sets, strict=True)]
    return np.array(hits, dtype=np.int8)


class _Single(list[Any]):
    """One label per image, as lists of one."""


def _label_sets(labels: Any) -> Sequence[Sequence[int]]:
    if isinstance(labels, np.ndarray) and labels.dtype != object:
        array = labels
    else:
        items = list(cast(Iterable[Any], labels))
        if items and all(isinstance(one, (list, tuple, np.ndarray, set, frozenset)) for one in items):
            sets = [list(one) for one in items]
            for row, one in enumerate(sets):
                if any(isinstance(label, bool) or not isinstance(label, (int, np.integer)) for label in one):
                    raise HarnessError(f"labels[{row}]: {one!r} is not a list of class indices")
            return sets
        array = np.asarray(items) if items else np.empty(0, dtype=np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise HarnessError(
            f"labels: shape {list(array.shape)} and dtype {array.dtype}; one class index per image is required"
        )
    return _Single(array.astype(np.int64)[:, None])


def _ranks(
    values: NDArray[Any], rows: NDArray[np.intp], labels: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Rank of each label in its row (int32 max where unknown), and the predicted class of each row."""
    if values.ndim == 1:
        unknown = np.int32(np.iinfo(np.int32).max)
        return np.where(values[rows] == labels, np.int32(0), unknown), values.astype(np.int32)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, column = bad[0]
        raise HarnessError(f"scores[{row}, {column}]: {values[row, column]}; scores must be finite numbers")
    if values.shape[1] == 0 and len(values):
        raise HarnessError("scores: no columns; there must be at least one class")
    predicted = values.argmax(axis=1).astype(np.int32) if len(values) else np.empty(0, np.int32)
    ranks = np.empty(len(rows), dtype=np.int32)
    columns = np.arange(values.shape[1])
    step = max(1, _CELLS // max(1, values.shape[1]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        block, label = values[rows[part]], labels[part, None]
        own = np.take_along_axis(block, label, axis=1)
        ranks[part] = (block > own).sum(axis=1) + ((block == own) & (columns < label)).sum(axis=1)
    return ranks, predicted


class ClassificationResult(SummedResult):
    """Rank of the label and predicted class of each image.

    Attributes:
        ids: str [N].
        classes: str [C].
        label: int32 [N], -1 where images have sets of labels.
        predicted: int32 [N], the predicted class.
        rank: int32 [N], of the (best) label, 0 is top-1; -1 where it is not known, only that it is not 0.
        real: int8 [N], 1 where the predicted class is one of the image's ReaL labels, 0 where not, -1 where it has
            none. None without ReaL labels.
    """

    metric: ClassVar[str] = "top1"
    version: ClassVar[int] = 1
    main: ClassVar[str] = "top1"
    breakdowns: ClassVar[tuple[str, ...]] = ("class",)

    def __init__(
        self,
        ids: NDArray[np.str_],
        classes: NDArray[np.str_],
        label: NDArray[np.int32],
        predicted: NDArray[np.int32],
        rank: NDArray[np.int32],
        real: NDArray[np.int8] | None = None,
    ) -> None:
        self.ids, self.classes, self.label, self.predicted, self.rank = ids, classes, label, predicted, rank
        self.real = real

    @property
    def top1(self) -> float:
        """Share of images whose label is predicted, in [0, 1]."""
        return self.reduce()["top1"]

    def reduce(self, weights: Weights | None = None) -> dict[str, float]:
        """top1, top5, macro precision, recall and F1, and real where there are ReaL labels.

        top5 is NaN for fewer than five classes, and where only predicted classes were given. The macro averages run
        over the classes that occur as a label or a prediction; 0/0 counts as 0 (scikit-learn's
        ``precision_recall_fscore_support(average="macro", zero_division=0)``).

        Args:
            weights: int64 [N]; None means once.
        """
        w = np.ones(len(self.ids), np.int64) if weights is None else checked_weights(weights, len(self.ids))
        total = w.sum()
        five = len(self.classes) >= 5 and not (self.rank == _UNKNOWN).any()
        numbers = {
            "top1": float(ratio(w[self.rank == 0].sum(), total)),
            "top5": float(ratio(w[self.rank < 5].sum(), total)) if five else float("nan"),
        }
        if self.real is not None:
            numbers["real"] = float(ratio(w[self.real == 1].sum(), w[self.real != _NO_REAL].sum()))
        return numbers | self._macro(w)

    def _macro(self, w: NDArray[np.int64]) -> dict[str, float]:
        names = ("macro_precision", "macro_recall", "macro_f1")
        if (self.label == _UNKNOWN).any() or not w.any():
            return dict.fromkeys(names, float("nan"))
        size = len(self.classes)
        truth = np.bincount(self.label, w, size)
        predicted = np.bincount(self.predicted, w, size)
        hit = np.bincount(self.label, w * (self.label == self.predicted), size)
        occurs = (truth + predicted) > 0
        precision, recall, f1 = (
            np.nan_to_num(ratio(top, bottom)[occurs], nan=0.0).mean()
            for top, bottom in ((hit, predicted), (hit, truth), (2 * hit, truth + predicted))
        )
        return dict(zip(names, (float(precision), float(recall), float(f1)), strict=True))

    def by_image(self) -> NDArray[np.float64]:
        """Images that are right, and all images: float64 [N, 2]."""
        return np.stack([self.rank == 0, np.ones(len(self.ids))], axis=1, dtype=np.float64)

    def number_of(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Top-1."""
        return ratio(sums[:, 0], sums[:, 1])

    def reduce_by(self, kind: str, weights: Weights) -> tuple[list[str], NDArray[np.float64]]:
        """Top-1 among the images of each class. No parts where images have sets of labels."""
        w = checked_weights(weights, len(self.ids))
        names = [] if (self.label == _UNKNOWN).any() else [str(name) for name in self.classes]
        return names, ratio(
            grouped_sums(w * (self.rank == 0), self.label, len(names)), grouped_sums(w, self.label, len(names))
        )

    def per_class(self) -> dict[str, float]:
        """Top-1 among the images of each class; NaN for a class without images. Empty for sets of labels."""
        if (self.label == _UNKNOWN).any():
            return {}
        size = len(self.classes)
        correct = ratio(np.bincount(self.label, self.rank == 0, size), np.bincount(self.label, minlength=size))
        return {str(name): float(value) for name, value in zip(self.classes, correct, strict=True)}

    @property
    def statistics(self) -> dict[str, NDArray[Any]]:
        """Arrays ``ids, classes, label, predicted, rank``, and ``real`` where there are ReaL labels."""
        names = ("ids", "classes", "label", "predicted", "rank", *(() if self.real is None else ("real",)))
        return {name: getattr(self, name) for name in names}

    def shared(self) -> dict[str, NDArray[Any]]:
        """The classes."""
        return {"classes": self.classes}

    def ground_truth(self) -> dict[str, NDArray[Any]]:
        """Classes and labels."""
        return {"ids": self.ids, "classes": self.classes, "label": self.label}

    @classmethod
    def from_statistics(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The inverse of `statistics`. Raises HarnessError if an array is missing or not valid."""
        ids = stored_ids(arrays)
        classes = stored(arrays, "classes", np.str_, None)
        n, last = len(ids), len(classes) - 1
        label = within(stored(arrays, "label", np.int32, n), "label", _UNKNOWN, last)
        predicted = within(stored(arrays, "predicted", np.int32, n), "predicted", 0, last)
        rank = within(stored(arrays, "rank", np.int32, n), "rank", _UNKNOWN, last)
        real = within(stored(arrays, "real", np.int8, n), "real", _NO_REAL, 1) if "real" in arrays else None
        sets = label == _UNKNOWN
        require(sets.all() or not sets.any(), "label", "only some images have a single label")
        right = (rank == 0) == (predicted == label)
        require((right | sets).all(), "rank", "is 0 for other images than those whose predicted class is the label")
        return cls(ids, classes, label, predicted, rank, real)

    @classmethod
    def merge(cls, shards: Sequence[Self]) -> Self:
        """Join shards by image id. Raises HarnessError if their classes differ, or only some have ReaL labels."""
        ids, first = union([shard.ids for shard in shards])
        classes = same([shard.classes for shard in shards], "classes")
        label, predicted, rank = (
            np.concatenate([getattr(s, name) for s in shards])[first] for name in ("label", "predicted", "rank")
        )
        reals = [shard.real for shard in shards if shard.real is not None]
        if 0 < len(reals) < len(shards):
            raise HarnessError("merge: only some shards have ReaL labels; score all of them with the same labels")
        return cls(ids, classes, label, predicted, rank, np.concatenate(reals)[first] if reals else None)
