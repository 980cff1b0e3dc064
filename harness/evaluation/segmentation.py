"""Semantic segmentation: Cityscapes' IoU, category IoU and instance-level iIoU, by counting label ids.

Source: cityscapesScripts, evalPixelLevelSemanticLabeling.py. Ground-truth pixels of ignored classes drop out; a valid
pixel that is predicted as an ignored class is a miss of its own class. A class that neither the ground truth nor the
prediction has (on valid pixels) is undefined and left out of the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, cast

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.evaluation import segmentation_kernels as kernels
from harness.evaluation.arrays import (
    Weights,
    checked_weights,
    ratio,
    require,
    same,
    sorted_ids,
    stored,
    stored_ids,
    union,
    within,
)
from harness.evaluation.jit import processors
from harness.evaluation.label_map import CITYSCAPES, LabelClass, LabelMap
from harness.evaluation.label_maps import LabelMaps, find_truth, read_png
from harness.evaluation.metric import SummedResult

__all__ = ["CITYSCAPES", "LabelClass", "LabelMap", "SegmentationResult", "evaluate"]

Maps = Sequence[NDArray[np.uint8]]


def evaluate(
    truth: Path | str | Sequence[Path] | Maps,
    prediction: Path | str | Maps,
    label_map: LabelMap = CITYSCAPES,
    ids: Sequence[str] | None = None,
    instances: Sequence[NDArray[Any]] | None = None,
) -> SegmentationResult:
    """Score label maps.

    Args:
        truth: Folder with ``city_seq_frame_gtFine_labelIds.png`` in any subfolders, or a list of such files (with
            ``..._instanceIds.png`` beside them, for iIoU). Or a sequence of uint8 [H, W] label ids.
        prediction: Folder or ZIP with one ``city_seq_frame*.png`` of label ids per frame. Or a sequence like `truth`.
        label_map: What the ids mean.
        ids: Score only these frames, in folders; with sequences, one id per image (None numbers them).
        instances: With sequences, one int [H, W] of ``1000 * label id + number`` per image, for iIoU.

    Raises:
        HarnessError: A frame is missing or has two files, sizes differ, a file is not an 8-bit PNG, or an id is not in
            the label map.
    """
    counter = _Counter(label_map)
    files = isinstance(truth, (str, Path)) or (len(truth) > 0 and isinstance(truth[0], Path))
    if files != isinstance(prediction, (str, Path)):
        raise HarnessError("segmentation: give files or arrays for both the ground truth and the prediction")
    if isinstance(prediction, (str, Path)):
        source = Path(truth) if isinstance(truth, (str, Path)) else cast("Sequence[Path]", truth)
        return _evaluate_files(source, Path(prediction), counter, ids)
    truth = cast("Maps", truth)
    if len(truth) != len(prediction) or (instances is not None and len(instances) != len(truth)):
        raise HarnessError(f"segmentation: {len(truth)} label maps of ground truth for {len(prediction)} predictions")
    names = [f"{n:08d}" for n in range(len(truth))] if ids is None else list(ids)
    if len(names) != len(truth):
        raise HarnessError(f"ids: {len(names)} for {len(truth)} images; one id per image is required")
    order = sorted_ids(names)[1]
    rows = [
        counter.count(truth[n], prediction[n], None if instances is None else instances[n], f"image {names[n]!r}")
        for n in order
    ]
    return counter.result(sorted(names), rows, instances is not None)


def perfect(truth: Path | Sequence[Path], label_map: LabelMap, ids: Sequence[str] | None = None) -> SegmentationResult:
    """The score of predictions that equal the ground truth.

    Args:
        truth: Folder or files, as `evaluate` takes them.
        label_map: What the ids mean.
        ids: These frames only.

    Raises:
        HarnessError: As `evaluate`.
    """
    return _evaluate_files(truth, None, _Counter(label_map), ids)


def _evaluate_files(
    truth: Path | Sequence[Path], prediction: Path | None, counter: _Counter, ids: Sequence[str] | None
) -> SegmentationResult:
    label_of = find_truth(truth)
    frames = sorted(label_of) if ids is None else sorted_ids(ids)[0].tolist()
    unknown = next((frame for frame in frames if frame not in label_of), None)
    if unknown is not None:
        raise HarnessError(f"ids: the ground truth has no {unknown}_gtFine_labelIds.png")
    predictions = None if prediction is None else LabelMaps(prediction, frames, label_of)
    instance_of = {f: path.with_name(path.name.replace("labelIds", "instanceIds")) for f, path in label_of.items()}
    present = [frame for frame in frames if instance_of[frame].is_file()]
    if present and len(present) < len(frames):
        lacking = next(frame for frame in frames if not instance_of[frame].is_file())
        raise HarnessError(f"{instance_of[lacking]}: is missing, but other frames have one; iIoU needs all or none")

    def row(frame: str) -> _Row:
        label = read_png(label_of[frame], ("L", "P"))
        instance = read_png(instance_of[frame], ("I;16", "I", "L"), label.shape) if present else None
        if predictions is None:
            return counter.count(label, label, instance, str(label_of[frame]))
        return counter.count(label, predictions.read(frame, label.shape), instance, predictions.path(frame))

    with ThreadPoolExecutor(processors()) as pool:  # decoding and counting release the GIL
        rows = list(pool.map(row, frames))
    return counter.result(frames, rows, bool(present))


class _Row(NamedTuple):
    """One image's statistics; see `SegmentationResult`."""

    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    fn: NDArray[np.int64]
    category_tp: NDArray[np.int64]
    category_fp: NDArray[np.int64]
    category_fn: NDArray[np.int64]
    instance_count: NDArray[np.int64]
    instance_pixels: NDArray[np.int64]
    instance_hit: NDArray[np.float64]
    instance_category_hit: NDArray[np.float64]
    instance_category_fp: NDArray[np.int64]


class _Counter:
    """Counts images under one label map."""

    def __init__(self, label_map: LabelMap) -> None:
        self.map = label_map
        classes, evaluated = label_map.classes, label_map.evaluated
        self.all_ids = np.array([c.id for c in classes], dtype=np.intp)
        self.rows = np.array([n for n, c in enumerate(classes) if c.evaluated], dtype=np.intp)
        # Which evaluated classes [G, E], and which classes of all [G, C], belong to a category: sums are products.
        self.members, self.columns = (
            np.array([[c.category == one for c in some] for one in label_map.categories], dtype=np.int64).reshape(
                -1, len(some)
            )
            for some in (evaluated, classes)
        )
        # Categories of which every class has instances are scored at instance level. Their ignored classes count as
        # hits of the category there (a caravan for a car), though not in category IoU: the official script's rule.
        within = [np.flatnonzero(columns).tolist() for columns in self.columns]
        self.with_instances = [all(classes[n].has_instances for n in columns) for columns in within]
        self.instance_classes = [n for n, c in enumerate(evaluated) if c.has_instances]
        self.same_category = np.zeros((256, 256), np.bool_)
        for columns, scored in zip(within, self.with_instances, strict=True):
            if scored:
                self.same_category[np.ix_(self.all_ids[columns], self.all_ids[columns])] = True

    def count(self, truth: NDArray[Any], prediction: NDArray[Any], instances: NDArray[Any] | None, place: str) -> _Row:
        """One image's row."""
        for name, array in (("ground truth", truth), ("prediction", prediction)):
            if getattr(array, "dtype", None) != np.uint8 or array.ndim != 2:
                raise HarnessError(f"{place}: {name}: label maps are uint8 [H, W]")
        if truth.shape != prediction.shape:
            raise HarnessError(
                f"{place}: shape {list(prediction.shape)} where the ground truth has {list(truth.shape)}; resize "
                "predictions to the original size (nearest neighbour)"
            )
        histogram = kernels.count_pairs(truth, prediction)
        pairs = histogram[np.ix_(self.all_ids, self.all_ids)]
        if pairs.sum() < truth.size:
            raise self._unknown(histogram, place)
        valid = pairs[self.rows]  # ground-truth rows of ignored classes drop out, predicted columns stay
        square = valid[:, self.rows]
        tp = square.diagonal().copy()
        row_sums, column_sums = valid.sum(axis=1), square.sum(axis=0)
        category_tp = (self.members @ square @ self.members.T).diagonal()
        any_tp = (self.members @ valid @ self.columns.T).diagonal()
        return _Row(
            tp,
            column_sums - tp,
            row_sums - tp,
            category_tp,
            self.members @ column_sums - category_tp,
            self.members @ row_sums - category_tp,
            *self._count_instances(instances, prediction, place),
            self.columns @ valid.sum(axis=0) - any_tp,
        )

    def _unknown(self, histogram: NDArray[np.int64], place: str) -> HarnessError:
        truth, prediction = (np.setdiff1d(np.flatnonzero(histogram.sum(axis=axis)), self.all_ids) for axis in (1, 0))
        what, found = ("the ground truth", truth) if len(truth) else ("the prediction", prediction)
        return HarnessError(
            f"{place}: {what} holds the id {found[0]}, which is not in the label map; label maps hold label ids, not "
            "train ids"
        )

    def _count_instances(
        self, instances: NDArray[Any] | None, prediction: NDArray[np.uint8], place: str
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        size = len(self.instance_classes)
        count, pixels = np.zeros(size, np.int64), np.zeros(size, np.int64)
        hit, category_hit = np.zeros(size), np.zeros(size)
        if instances is None:
            return count, pixels, hit, category_hit
        if instances.shape != prediction.shape or instances.dtype.kind not in "iu":
            raise HarnessError(f"{place}: the instance ids are not whole numbers of the ground truth's shape")
        if instances.size and not 0 <= instances.min() <= instances.max() < 66_000:
            raise HarnessError(
                f"{place}: an instance id lies outside 0 to 65999 (1000 times the label id plus a number)"
            )
        table = kernels.count_instances(
            np.ascontiguousarray(instances, dtype=np.int32).reshape(-1),
            np.ascontiguousarray(prediction).reshape(-1),
            self.same_category,
        )
        found = np.flatnonzero(table[:, 0])
        labels = found // 1000
        unknown = found[~np.isin(labels, self.all_ids)]
        if len(unknown):
            raise HarnessError(f"{place}: the instance id {unknown[0]} is of no class in the label map")
        for n, index in enumerate(self.instance_classes):
            mine = table[found[labels == self.all_ids[self.rows[index]]]]
            count[n], pixels[n] = len(mine), mine[:, 0].sum()
            hit[n], category_hit[n] = (mine[:, 1] / mine[:, 0]).sum(), (mine[:, 2] / mine[:, 0]).sum()
        return count, pixels, hit, category_hit

    def result(self, ids: Sequence[str], rows: Sequence[_Row], with_instances: bool) -> SegmentationResult:
        """The rows of all images, in the order of `ids`."""
        if not rows:
            raise HarnessError("segmentation: there are no images to score")
        evaluated, categories = self.map.evaluated, self.map.categories
        arrays: dict[str, NDArray[Any]] = {name: np.stack([getattr(r, name) for r in rows]) for name in _Row._fields}
        chosen = self.instance_classes if with_instances else []
        if not with_instances:
            for name in _PER_INSTANCE_CLASS:
                arrays[name] = arrays[name][:, :0]
        scored = {c: n for n, c in enumerate(categories) if self.with_instances[n]}
        arrays |= {
            "ids": np.array(ids, dtype=np.str_),
            "classes": np.array([c.name for c in evaluated], dtype=np.str_),
            "categories": np.array(categories, dtype=np.str_),
            "instance_class": np.array(chosen, dtype=np.int32),
            "instance_category": np.array([scored.get(evaluated[n].category, -1) for n in chosen], dtype=np.int32),
            "average_size": np.array([evaluated[n].average_size or 0.0 for n in chosen], dtype=np.float64),
        }
        return SegmentationResult(arrays)


_LABEL_MAP = ("classes", "categories", "instance_class", "instance_category", "average_size")
_PER_INSTANCE_CLASS = ("instance_count", "instance_pixels", "instance_hit", "instance_category_hit")


class SegmentationResult(SummedResult):
    """Each image's pixel counts by class and category, and sums over its instances.

    Attributes:
        ids: str [N].
        arrays: The statistics. ``classes`` str [E] and ``categories`` str [G]; ``tp, fp, fn`` int64 [N, E]: pixels on
            valid ground truth; ``category_tp, category_fp, category_fn`` int64 [N, G]. For iIoU ``instance_class``
            int32 [I], index into classes, and ``instance_category`` int32 [I], index into categories or -1 (I is 0
            without instance ids); ``average_size`` float64 [I], pixels, 0 for the data's own average;
            ``instance_count, instance_pixels`` int64 [N, I]; ``instance_hit, instance_category_hit`` float64 [N, I],
            sums over instances of the share of pixels that are predicted as the class, or its category;
            ``instance_category_fp`` int64 [N, G].
    """

    metric: ClassVar[str] = "cityscapes_iou"
    version: ClassVar[int] = 1
    main: ClassVar[str] = "miou"
    breakdowns: ClassVar[tuple[str, ...]] = ("class", "category")

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.ids = arrays["ids"]
        self.arrays = dict(arrays)

    @property
    def miou(self) -> float:
        """Mean IoU over classes, a fraction."""
        return self.reduce()["miou"]

    @property
    def iiou(self) -> float:
        """Mean instance-level IoU over classes with instances; NaN without instance ids."""
        return self.reduce()["iiou"]

    @property
    def class_iou(self) -> dict[str, float]:
        """IoU of each evaluated class; NaN where it occurs nowhere."""
        return self._named("classes", self._iou("", self._once))

    @property
    def category_iou(self) -> dict[str, float]:
        """IoU of each category; NaN where it occurs nowhere."""
        return self._named("categories", self._iou("category_", self._once))

    @property
    def class_iiou(self) -> dict[str, float]:
        """Instance-level IoU of each class with instances; NaN where it occurs nowhere."""
        values = self._instance_iou(self._once)[0][0]
        names = self.arrays["classes"][self.arrays["instance_class"]]
        return {str(name): float(value) for name, value in zip(names, values, strict=True)}

    @property
    def _once(self) -> NDArray[np.int64]:
        return np.ones((1, len(self.ids)), np.int64)

    def _named(self, names: str, values: NDArray[np.float64]) -> dict[str, float]:
        return {str(name): float(value) for name, value in zip(self.arrays[names], values[0], strict=True)}

    def _iou(self, prefix: str, weights: Weights) -> NDArray[np.float64]:
        # One product in float64: sums of pixels are whole numbers below 2**53, so they are exact in any order.
        return _ratio_of(weights.astype(np.float64) @ (self._pixels(prefix) if prefix else self.image_sums))

    def _pixels(self, prefix: str) -> NDArray[np.float64]:
        """Pixels of each class (or category) that are hit, then those in its union: float64 [N, 2 E] (or [N, 2 G])."""
        tp, fp, fn = (self.arrays[f"{prefix}{name}"].astype(np.float64) for name in ("tp", "fp", "fn"))
        return np.concatenate([tp, tp + fp + fn], axis=1)

    def _instance_iou(self, weights: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The iIoU of each class with instances [D, I], and of each category of which all classes have some [D, G]."""
        a, w = self.arrays, weights.astype(np.float64)
        pixels, number = a["instance_pixels"].sum(axis=0), a["instance_count"].sum(axis=0)
        size = np.where(a["average_size"] > 0, a["average_size"], np.nan_to_num(ratio(pixels, number), nan=0.0))
        truth, hit = (w @ a["instance_count"]) * size, (w @ a["instance_hit"]) * size
        by_class = ratio(hit, truth + w @ a["fp"][:, a["instance_class"]].astype(np.float64))
        belongs = (a["instance_category"][:, None] == np.arange(len(a["categories"]))).astype(np.float64)
        category_hit = ((w @ a["instance_category_hit"]) * size) @ belongs
        by_category = ratio(category_hit, truth @ belongs + w @ a["instance_category_fp"].astype(np.float64))
        by_category[:, ~belongs.any(axis=0)] = np.nan
        return by_class, by_category

    def reduce(self, weights: Weights | None = None) -> dict[str, float]:
        """``miou, category_miou, iiou, category_iiou``: means over the classes or categories that are defined.

        Args:
            weights: int64 [N]; None means once.
        """
        w = self._once if weights is None else checked_weights(weights, len(self.ids))[None]
        by_class, by_category = self._instance_iou(w)
        columns = {
            "miou": self._iou("", w),
            "category_miou": self._iou("category_", w),
            "iiou": by_class,
            "category_iiou": by_category,
        }
        return {name: float(_mean_of_defined(values)[0]) for name, values in columns.items()}

    def by_image(self) -> NDArray[np.float64]:
        """Pixels of each class that are hit, and that are in its union: float64 [N, 2 E]."""
        return self._pixels("")

    def number_of(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean IoU over the classes that occur."""
        return _mean_of_defined(_ratio_of(sums))

    def reduce_by(self, kind: str, weights: Weights) -> tuple[list[str], NDArray[np.float64]]:
        """IoU of each evaluated class, or of each category."""
        names, prefix = ("classes", "") if kind == "class" else ("categories", "category_")
        values = self._iou(prefix, checked_weights(weights, len(self.ids)))
        return [str(name) for name in self.arrays[names]], values

    def per_class(self) -> dict[str, float]:
        """IoU of each evaluated class; NaN where it occurs nowhere."""
        return self.class_iou

    @property
    def statistics(self) -> dict[str, NDArray[Any]]:
        """The arrays named under Attributes."""
        return dict(self.arrays)

    def shared(self) -> dict[str, NDArray[Any]]:
        """The label map."""
        return {name: self.arrays[name] for name in _LABEL_MAP}

    def ground_truth(self) -> dict[str, NDArray[Any]]:
        """The label map, pixels of each class and category, and the instances."""
        a = self.arrays
        pixels = {"tp + fn": a["tp"] + a["fn"], "category_tp + category_fn": a["category_tp"] + a["category_fn"]}
        names = ("ids", *_LABEL_MAP, "instance_count", "instance_pixels")
        return {name: a[name] for name in names} | pixels

    @classmethod
    def from_statistics(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The inverse of `statistics`. Raises HarnessError if an array is missing or not valid."""
        ids, classes = stored_ids(arrays), stored(arrays, "classes", np.str_, None)
        categories = stored(arrays, "categories", np.str_, None)
        chosen = within(stored(arrays, "instance_class", np.int32, None), "instance_class", 0, len(classes) - 1)
        n, e, g, i = len(ids), len(classes), len(categories), len(chosen)
        belongs = stored(arrays, "instance_category", np.int32, i)
        found: dict[str, NDArray[Any]] = {
            "ids": ids,
            "classes": classes,
            "categories": categories,
            "instance_class": chosen,
            "instance_category": within(belongs, "instance_category", -1, g - 1),
            "average_size": stored(arrays, "average_size", np.float64, i),
        }
        widths = {"tp": e, "fp": e, "fn": e} | dict.fromkeys(_PER_INSTANCE_CLASS, i)
        for name in _Row._fields:
            dtype = np.float64 if name.endswith("_hit") else np.int64
            array = stored(arrays, name, dtype, n, widths.get(name, g))
            # No image has more pixels; sums over images then stay exact, in int64 and in float64.
            if not (array >= 0).all() or not (array < (np.inf if dtype is np.float64 else 2**31)).all():
                raise HarnessError(
                    f"statistics: {name}: a count is negative, NaN or too large; score the predictions again"
                )
            found[name] = array
        # A pixel that one class misses is a false hit of at most one other; of none if it is predicted as ignored.
        false, missed = found["fp"], found["fn"].sum(axis=1)
        possible = (false.sum(axis=1) <= missed).all() and (false + found["fn"] <= missed[:, None]).all()
        require(possible, "fp", "an image has more false hits of some classes than the others miss")
        for name in ("instance_hit", "instance_category_hit"):
            require((found[name] <= found["instance_count"]).all(), name, "exceeds the number of instances")
        return cls(found)

    @classmethod
    def merge(cls, shards: Sequence[Self]) -> Self:
        """Join shards by image id. Raises HarnessError if their label maps differ, or only some have instances."""
        ids, first = union([shard.ids for shard in shards])
        arrays: dict[str, NDArray[Any]] = {"ids": ids}
        for name in _LABEL_MAP:
            arrays[name] = same([s.arrays[name] for s in shards], name)
        for name in _Row._fields:
            arrays[name] = np.concatenate([s.arrays[name] for s in shards])[first]
        return cls(arrays)


def _ratio_of(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU [D, E] of sums of hit pixels beside those of unions [D, 2 E]; NaN where a union is empty."""
    hits, unions = np.split(sums, 2, axis=1)
    return ratio(hits, unions)


def _mean_of_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the columns that are not NaN, added one after the other as the official script does."""
    total, count = np.zeros(len(values)), np.zeros(len(values))
    for column in values.T:
        defined = ~np.isnan(column)
        total += np.where(defined, column, 0.0)
        count += defined
    return ratio(total, count)
