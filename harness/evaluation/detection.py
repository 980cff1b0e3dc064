"""Box detection: COCOeval's twelve numbers, bit for bit, and their weighted versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.evaluation import match_kernels as kernels
from harness.evaluation.detection_result import (
    AREA_RANGES,
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    DetectionResult,
)
from harness.evaluation.detection_truth import Truth, read_truth
from harness.evaluation.jit import processors
from harness.evaluation.predictions import Detections, read_detections

__all__ = ["DetectionResult", "evaluate"]

_DENSE = 1 << 20  # cells of images and categories that are always laid out, empty ones too
_SEVERAL_THREADS = 100_000  # detections from which on starting threads pays


def evaluate(
    truth: Path | str | Mapping[str, Any],
    results: Path | str | Sequence[Mapping[str, Any]],
    image_ids: Sequence[int] | None = None,
) -> DetectionResult:
    """Score detected boxes as COCOeval does with ``iouType="bbox"``.

    Args:
        truth: COCO instances file, or its content.
        results: COCO results file, or its content.
        image_ids: Score only these images; None means all.

    Raises:
        HarnessError: A file is not valid, or a result names an unknown image or category. Also annotation ids of 0,
            which COCOeval silently takes for "no match".
    """
    ground_truth = read_truth(truth)
    found = read_detections(results, ground_truth.sizes, ground_truth.category_ids.tolist())
    images = ground_truth.image_ids
    if image_ids is not None:
        chosen = np.unique(np.asarray(image_ids, dtype=np.int64))
        unknown = np.setdiff1d(chosen, images)
        if len(unknown):
            raise HarnessError(f"image_ids: {unknown[0]} is not an image of {ground_truth.name}")
        images = chosen
    return _match(ground_truth, found, images)


def _match(truth: Truth, found: Detections, images: NDArray[np.int64]) -> DetectionResult:
    """Match within each image and category (cell), for `images` in ascending order."""
    cell, keep = _cells(images, truth.category_ids, found.image_ids, found.category_ids)
    truth_cell, truth_keep = _cells(images, truth.category_ids, truth.images, truth.categories)
    cells = len(images) * len(truth.category_ids)
    names = np.arange(cells)
    if cells > _DENSE + 8 * (len(cell) + len(truth_cell)):  # mostly empty: only those that occur
        names, place = np.unique(np.concatenate([cell, truth_cell]), return_inverse=True)
        cell, truth_cell, cells = place[: len(cell)], place[len(cell) :], len(names)
    start, order = kernels.group(cell, cells)
    scores = found.scores[keep]
    kept = kernels.sort_by_score(start, order, scores, int(MAX_DETECTIONS[-1]))
    truth_start, truth_order = kernels.group(truth_cell, cells)
    chosen, cell_of, matched, ignored = (np.empty(kept[-1], np.int64) for _ in range(4))
    counts = np.zeros((cells, kernels.AREAS), np.int32)
    arrays = (
        start, kept, order, found.boxes[keep],
        truth_start, truth_order, truth.boxes[truth_keep], truth.areas[truth_keep], truth.crowd[truth_keep],
        AREA_RANGES, IOU_THRESHOLDS, chosen, cell_of, matched, ignored, counts,
    )  # fmt: skip
    workers = processors() if len(cell) > _SEVERAL_THREADS else 1
    edges = np.searchsorted(start, np.linspace(0, len(cell), workers + 1)[1:-1]).tolist()
    with ThreadPoolExecutor(workers) as pool:  # cells are independent, and the kernel releases the GIL
        parts = list(pairwise([0, *edges, cells]))
        list(pool.map(lambda part: kernels.match(part[0], part[1], *arrays), parts))
    ids = np.array([str(image) for image in images.tolist()], dtype=np.str_)
    order_of_text = np.argsort(ids)
    text_place = np.empty(len(ids), np.int32)  # numeric order -> position in the sorted texts
    text_place[order_of_text] = np.arange(len(ids), dtype=np.int32)
    has_truth = np.diff(truth_start) > 0
    category, image = np.divmod(names[cell_of], max(1, len(ids)))
    truth_category, truth_image = np.divmod(names[has_truth], max(1, len(ids)))
    return DetectionResult(
        ids[order_of_text],
        truth.category_ids,
        truth.category_names,
        text_place[image],
        category.astype(np.int32),
        scores[chosen],
        matched,
        ignored,
        text_place[truth_image],
        truth_category.astype(np.int32),
        counts[has_truth],
    )


def _cells(
    images: NDArray[np.int64], categories: NDArray[np.int64], image: NDArray[np.int64], category: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.intp] | slice]:
    """Category index times number of images plus image index of the entries on `images`; which entries these are."""
    i = np.searchsorted(images, image)
    on = i < len(images)
    on[on] = images[i[on]] == image[on]
    keep: NDArray[np.intp] | slice = slice(None) if on.all() else np.flatnonzero(on)
    k = np.searchsorted(categories, category[keep])
    return k.astype(np.int64) * len(images) + i[keep], keep
