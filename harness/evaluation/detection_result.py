"""The statistics of detected boxes, and COCOeval's numbers as reductions of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.evaluation import detection_kernels as kernels
from harness.evaluation.arrays import Weights, checked_weights, owners, require, same, stored, stored_ids, within
from harness.evaluation.jit import processors
from harness.evaluation.match_kernels import AREAS, THRESHOLDS
from harness.evaluation.metric import Result

# pycocotools Params.setDetParams: linspace, because arange's values differ in the last bit
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_THRESHOLDS = np.linspace(0.0, 1.0, 101)
AREA_RANGES = np.array([[0, 1e5**2], [0, 32**2], [32**2, 96**2], [96**2, 1e5**2]])
MAX_DETECTIONS = np.array([1, 10, 100])
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


class _Stream(NamedTuple):
    """What a weighted reduction of one category needs (see `detection_kernels.reduce_lanes`)."""

    start: NDArray[np.int64]
    image: NDArray[np.int32]
    bits: NDArray[np.int32]
    rank: NDArray[np.int32]


class DetectionResult(Result):
    """Each detection's matches, and the ground truths of each image and category.

    Bit ``10 a + t`` of the words stands for area range a (all, small, medium, large) and IoU threshold 0.5 + 0.05 t.

    Attributes:
        ids: str [N], COCO image ids as text, sorted as text (`order` has their numeric order, which decides ties).
        category_ids: int64 [K], sorted.
        category_names: str [K].
        image: int32 [M], index into `ids`; detections stand by category, then numeric image id, then score.
        category: int32 [M], index into `category_ids`.
        score: float64 [M].
        matched: int64 [M], bit set where the detection is matched.
        ignored: int64 [M], bit set where the detection counts neither for nor against.
        truth_image: int32 [G], one entry for each image and category with ground truth.
        truth_category: int32 [G].
        truth_count: int32 [G, 4], ground truths that count, by area range.
    """

    metric: ClassVar[str] = "coco_bbox"
    version: ClassVar[int] = 1
    main: ClassVar[str] = "AP"
    breakdowns: ClassVar[tuple[str, ...]] = ("class", "size")

    _ARRAYS = (
        "ids", "category_ids", "category_names", "image", "category", "score", "matched", "ignored",
        "truth_image", "truth_category", "truth_count",
    )  # fmt: skip

    def __init__(
        self,
        ids: NDArray[np.str_],
        category_ids: NDArray[np.int64],
        category_names: NDArray[np.str_],
        image: NDArray[np.int32],
        category: NDArray[np.int32],
        score: NDArray[np.float64],
        matched: NDArray[np.int64],
        ignored: NDArray[np.int64],
        truth_image: NDArray[np.int32],
        truth_category: NDArray[np.int32],
        truth_count: NDArray[np.int32],
    ) -> None:
        self.ids, self.category_ids, self.category_names = ids, category_ids, category_names
        self.image, self.category, self.score = image, category, score
        self.matched, self.ignored = matched, ignored
        self.truth_image, self.truth_category, self.truth_count = truth_image, truth_category, truth_count

    @property
    def stats(self) -> NDArray[np.float64]:
        """float64 [12], ``COCOeval.stats``: see `NAMES`; -1 where undefined."""
        curve, reached = self.precision, self.recall
        slices = [
            curve[..., 0, 2], curve[0, ..., 0, 2], curve[5, ..., 0, 2],
            curve[..., 1, 2], curve[..., 2, 2], curve[..., 3, 2],
            reached[..., 0, 0], reached[..., 0, 1], reached[..., 0, 2],
            reached[..., 1, 2], reached[..., 2, 2], reached[..., 3, 2],
        ]  # fmt: skip
        return np.array([_mean_of_defined(part) for part in slices])

    @property
    def precision(self) -> NDArray[np.float64]:
        """float64 [10, 101, K, 4, 3]: IoU threshold, recall, category, area range, max detections; -1 undefined."""
        return self._curves[0]

    @property
    def recall(self) -> NDArray[np.float64]:
        """float64 [10, K, 4, 3]; -1 undefined."""
        return self._curves[1]

    @property
    def scores(self) -> NDArray[np.float64]:
        """float64 [10, 101, K, 4, 3], the score at which each recall is reached; -1 undefined, 0 never reached."""
        return self._curves[2]

    @cached_property
    def order(self) -> NDArray[np.intp]:
        """Rank of each image by numeric id, intp [N]."""
        rank = np.empty(len(self.ids), np.intp)
        rank[np.argsort(self.ids.astype(np.int64))] = np.arange(len(self.ids))
        return rank

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.int64], NDArray[np.intp], NDArray[np.int32]]:
        """First detection of each category; detections by category and score; their rank in image and category."""
        rank = rank_within(self.category.astype(np.int64) * len(self.ids) + self.image)
        start = np.searchsorted(self.category, np.arange(len(self.category_ids) + 1)).astype(np.int64)
        # stable, so equal scores stay by image id, then rank: the order in which COCOeval concatenates images
        falling = -self.score
        parts = [first + np.argsort(falling[first:last], kind="stable") for first, last in pairwise(start.tolist())]
        order = np.concatenate(parts) if parts else np.empty(0, np.intp)
        return start, order, rank[order]

    @cached_property
    def _curves(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        size = len(self.category_ids)
        shape = (THRESHOLDS, kernels.RECALLS, size, AREAS, len(MAX_DETECTIONS))
        precision, scores = -np.ones(shape), -np.ones(shape)
        recall = -np.ones((shape[0], *shape[2:]))
        positives = np.zeros((size, AREAS), np.int64)
        np.add.at(positives, self.truth_category, self.truth_count)
        start, order, rank = self._sorted
        kernels.curves(
            start,
            self.score[order],
            rank,
            self.matched[order],
            self.ignored[order],
            positives,
            MAX_DETECTIONS,
            RECALL_THRESHOLDS,
            precision,
            recall,
            scores,
        )
        return precision, recall, scores

    def reduce(self, weights: Weights | None = None) -> dict[str, float]:
        """The twelve numbers (`NAMES`); NaN where COCOeval has -1.

        Args:
            weights: int64 [N]. A draw equals COCOeval on a data set with copies of the images, in which copies of a
                detection stand together; None means once, and equals COCOeval bit for bit.
        """
        if weights is None:
            values = np.where(self.stats == -1, np.nan, self.stats)
        else:
            values = self.reduce_many(np.asarray(weights)[None])[0]
        return dict(zip(NAMES, values.tolist(), strict=True))

    def reduce_main(self, weights: Weights) -> NDArray[np.float64]:
        """AP for int64 [D, N] weightings."""
        w = self._checked(weights)
        parts = [np.empty(0)]
        for positives, precision, _ in self._lanes(w, areas=1):
            parts.append(_mean_where(precision[:, :, 0].sum(axis=1), positives[:, 0] > 0, THRESHOLDS * kernels.RECALLS))
        return np.concatenate(parts)[: len(w)]

    def reduce_many(self, weights: Weights) -> NDArray[np.float64]:
        """The twelve numbers for many weightings at once.

        Args:
            weights: int64 [D, N].

        Returns:
            float64 [D, 12], NaN where undefined.

        Raises:
            HarnessError: Weights have the wrong shape, or are so large that counts exceed 31 bits.
        """
        w = self._checked(weights)
        return np.concatenate([np.empty((0, len(NAMES))), *(self._means(*part) for part in self._lanes(w))])[: len(w)]

    def _checked(self, weights: Weights) -> NDArray[np.int64]:
        w = checked_weights(weights, len(self.ids))
        heaviest = int(w.max(initial=0)) * max(len(self.image), int(self.truth_count.sum(dtype=np.int64)))
        if heaviest >= 2**31 and int(w.sum(axis=1).max(initial=0)) * self._busiest >= 2**31:
            raise HarnessError(f"weights: {w.max()} is too large; counts must stay below 2**31")
        return w

    @cached_property
    def _busiest(self) -> int:
        """The most detections or ground truths of one image."""
        detections = np.bincount(self.image, minlength=1)
        truths = np.bincount(self.truth_image, self.truth_count[:, 0], minlength=1)
        return int(max(detections.max(initial=0), truths.max(initial=0)))

    @cached_property
    def _streams(self) -> list[_Stream]:
        """For each category the detections that matter in each area range, by score."""
        start, order, rank = self._sorted
        streams = []
        for first, last in pairwise(start.tolist()):
            members = order[first:last]
            parts = [kernels.condense(self.matched[members], self.ignored[members], area) for area in range(AREAS)]
            kept = np.concatenate([part[0] for part in parts])
            streams.append(
                _Stream(
                    np.cumsum([0, *(len(part[0]) for part in parts)]),
                    self.image[members][kept],
                    np.concatenate([part[1] for part in parts]),
                    rank[first:last][kept],
                )
            )
        return streams

    def _lanes(
        self, weights: NDArray[np.int64], areas: int = AREAS
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
        """For each `LANES` weightings (the last filled up with zeros) what every category counts.

        With fewer area ranges than all, what is yielded of the others has no meaning.

        Yields:
            int32 [K, 4, LANES], ground truths that count; float64 [K, 10, 4, LANES], sums over the recall thresholds
            of precision; float64 [K, 10, 6, LANES], recall of 1, 10 and 100 detections, small, medium and large.
        """
        size, streams = len(self.category_ids), self._streams
        longest_first = sorted(range(size), key=lambda k: -len(streams[k].image))
        with ThreadPoolExecutor(processors()) as pool:  # the kernels release the GIL
            for first in range(0, len(weights), kernels.LANES):
                part = weights[first : first + kernels.LANES]
                lanes = np.zeros((len(self.ids), kernels.LANES), np.int32)
                lanes[:, : len(part)] = part.T
                positives = np.zeros((size, AREAS, kernels.LANES), np.int32)
                kernels.count_positives(self.truth_image, self.truth_category, self.truth_count, lanes, positives)
                precision = np.empty((size, THRESHOLDS, AREAS, kernels.LANES))
                recall = np.empty((size, THRESHOLDS, 6, kernels.LANES))

                def reduce(
                    k: int,
                    lanes: NDArray[np.int32] = lanes,
                    positives: NDArray[np.int32] = positives,
                    precision: NDArray[np.float64] = precision,
                    recall: NDArray[np.float64] = recall,
                ) -> None:
                    kernels.reduce_lanes(
                        *streams[k], positives[k], RECALL_THRESHOLDS, lanes, precision[k], recall[k], areas
                    )

                list(pool.map(reduce, longest_first))
                yield positives, precision, recall

    def _means(
        self, positives: NDArray[np.int32], precision: NDArray[np.float64], recall: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The twelve numbers [LANES, 12], means over the categories that have ground truth."""
        defined = positives > 0  # [K, 4, LANES]
        every, small, medium, large = (defined[:, area] for area in range(AREAS))
        columns = [
            _mean_where(precision[:, :, 0].sum(axis=1), every, THRESHOLDS * kernels.RECALLS),
            _mean_where(precision[:, 0, 0], every, kernels.RECALLS),
            _mean_where(precision[:, 5, 0], every, kernels.RECALLS),
        ]
        for area, valid in ((1, small), (2, medium), (3, large)):
            columns.append(_mean_where(precision[:, :, area].sum(axis=1), valid, THRESHOLDS * kernels.RECALLS))
        for column, valid in enumerate((every, every, every, small, medium, large)):
            columns.append(_mean_where(recall[:, :, column].sum(axis=1), valid, THRESHOLDS))
        return np.stack(columns, axis=1)

    def reduce_by(self, kind: str, weights: Weights) -> tuple[list[str], NDArray[np.float64]]:
        """AP of each category, or of small, medium and large boxes."""
        if kind == "size":
            return ["small", "medium", "large"], self.reduce_many(weights)[:, 3:6]
        w = self._checked(weights)
        values = np.empty((0, len(self.category_ids)))
        for positives, precision, _ in self._lanes(w, areas=1):
            one = precision[:, :, 0].sum(axis=1) / (THRESHOLDS * kernels.RECALLS)
            values = np.concatenate([values, np.where(positives[:, 0] > 0, one, np.nan).T])
        return self._labels, values[: len(w)]

    @property
    def _labels(self) -> list[str]:
        """Names of the categories; names that occur twice get their id added."""
        names = [str(name) for name in self.category_names]
        return [
            f"{name} ({category})" if names.count(name) > 1 else name
            for name, category in zip(names, self.category_ids, strict=True)
        ]

    def per_class(self) -> dict[str, float]:
        """AP of each category; NaN for a category without ground truth. Names that occur twice get their id added."""
        values = self.precision[:, :, :, 0, 2].mean(axis=(0, 1))
        return {label: float(v) if v > -1 else float("nan") for label, v in zip(self._labels, values, strict=True)}

    @property
    def statistics(self) -> dict[str, NDArray[Any]]:
        """The arrays named under Attributes."""
        return {name: getattr(self, name) for name in self._ARRAYS}

    def shared(self) -> dict[str, NDArray[Any]]:
        """The categories."""
        return {"category_ids": self.category_ids, "category_names": self.category_names}

    def ground_truth(self) -> dict[str, NDArray[Any]]:
        """The categories, and how many ground truths each image has of them."""
        names = ("ids", "category_ids", "category_names", "truth_image", "truth_category", "truth_count")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_statistics(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The inverse of `statistics`. Raises HarnessError if an array is missing or not valid."""
        ids = stored_ids(arrays)
        try:
            if not all(str(int(text)) == text for text in ids.tolist()):
                raise ValueError
            ids.astype(np.int64)
        except (ValueError, OverflowError):
            raise HarnessError(
                "statistics: ids: COCO image ids are whole numbers; score the predictions again"
            ) from None
        categories = stored(arrays, "category_ids", np.int64, None)
        k, n = len(categories), len(ids)
        m = len(stored(arrays, "score", np.float64, None))
        g = len(stored(arrays, "truth_image", np.int32, None))
        word = (1 << AREAS * THRESHOLDS) - 1
        result = cls(
            ids,
            categories,
            stored(arrays, "category_names", np.str_, k),
            within(stored(arrays, "image", np.int32, m), "image", 0, n - 1),
            within(stored(arrays, "category", np.int32, m), "category", 0, k - 1),
            stored(arrays, "score", np.float64, m),
            within(stored(arrays, "matched", np.int64, m), "matched", 0, word),
            within(stored(arrays, "ignored", np.int64, m), "ignored", 0, word),
            within(stored(arrays, "truth_image", np.int32, g), "truth_image", 0, n - 1),
            within(stored(arrays, "truth_category", np.int32, g), "truth_category", 0, k - 1),
            within(stored(arrays, "truth_count", np.int32, g, AREAS), "truth_count", 0, 2**31 - 1),
        )
        cell = result.category.astype(np.int64) * n + result.order[result.image]
        steps, falls = np.diff(cell), np.diff(result.score)
        if not np.isfinite(result.score).all() or (steps < 0).any() or (falls[steps == 0] > 0).any():
            raise HarnessError(
                "statistics: score: detections must stand by category, image id and descending finite score; score the "
                "predictions again"
            )
        if (result.truth_count.sum(axis=0, dtype=np.int64) >= 2**31).any():
            raise HarnessError("statistics: truth_count: the counts exceed 2**31; score the predictions again")
        result._check_matches()
        return result

    def _check_matches(self) -> None:
        """See to it that no ground truth is matched twice: each counts once for an area range and a threshold."""
        n, size = len(self.ids), len(self.truth_image)
        truth = self.truth_category.astype(np.int64) * n + self.truth_image
        order = np.argsort(truth, kind="stable")
        cells = truth[order]
        require((cells[:-1] < cells[1:]).all(), "truth_image", "a category stands twice for an image")
        in_range = (self.truth_count <= self.truth_count[:, :1]).all()
        require(in_range, "truth_count", "more ground truths count in an area range than in all")
        counting = self.matched & ~self.ignored
        some = np.flatnonzero(counting)
        counting, cell = counting[some], self.category[some].astype(np.int64) * n + self.image[some]
        place = np.searchsorted(cells, cell)
        known = place < size
        known[known] = cells[place[known]] == cell[known]
        require(known.all(), "matched", "a detection is matched where there is no ground truth")
        row = order[place]
        for bit in range(AREAS * THRESHOLDS):
            hits = np.bincount(row[(counting >> bit & 1).astype(np.bool_)], minlength=size)
            once = (hits <= self.truth_count[:, bit // THRESHOLDS]).all()
            require(once, "matched", "more detections are matched than there are ground truths")

    @classmethod
    def merge(cls, shards: Sequence[Self]) -> Self:
        """Join shards by image id. Raises HarnessError if their categories differ."""
        ids, places = owners([shard.ids for shard in shards])
        category_ids = same([shard.category_ids for shard in shards], "categories")
        names = same([shard.category_names for shard in shards], "category names")
        image = [place[s.image] for s, place in zip(shards, places, strict=True)]
        truth_image = [place[s.truth_image] for s, place in zip(shards, places, strict=True)]

        def joined(name: str, owner: Sequence[NDArray[np.int32]]) -> NDArray[Any]:
            return np.concatenate([getattr(s, name)[one >= 0] for s, one in zip(shards, owner, strict=True)])

        columns = [joined(name, image) for name in ("category", "score", "matched", "ignored")]
        truths = [joined(name, truth_image) for name in ("truth_category", "truth_count")]
        images = np.concatenate([one[one >= 0] for one in image])
        truth_images = np.concatenate([one[one >= 0] for one in truth_image])
        rank = np.empty(len(ids), np.intp)
        rank[np.argsort(ids.astype(np.int64))] = np.arange(len(ids))
        order = np.lexsort((rank[images], columns[0]))  # stable: within an image the order by score stays
        truth_order = np.lexsort((rank[truth_images], truths[0]))
        return cls(
            ids,
            category_ids,
            names,
            images[order],
            columns[0][order],
            columns[1][order],
            columns[2][order],
            columns[3][order],
            truth_images[truth_order],
            truths[0][truth_order],
            truths[1][truth_order],
        )


def _mean_of_defined(values: NDArray[np.float64]) -> float:
    # COCOeval's own expression: the same elements in the same order, summed pairwise by numpy
    defined = values[values > -1]
    return float(np.mean(defined)) if len(defined) else -1.0


def _mean_where(values: NDArray[np.float64], defined: NDArray[np.bool_], per_category: int) -> NDArray[np.float64]:
    """Mean over the defined categories [K, LANES] of sums over `per_category` numbers."""
    count = defined.sum(axis=0)
    total = np.where(defined, values, 0.0).sum(axis=0)
    mean: NDArray[np.float64] = np.full(len(count), np.nan)
    np.divide(total, count * per_category, out=mean, where=count > 0)
    return mean


def rank_within(cell: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    """Position of each entry among those of its cell, which stand together."""
    if not len(cell):
        return np.empty(0, np.int32)
    new = np.append(True, cell[1:] != cell[:-1])
    first = np.flatnonzero(new)[np.cumsum(new) - 1]
    rank: NDArray[np.int32] = (np.arange(len(cell)) - first).astype(np.int32)
    return rank
