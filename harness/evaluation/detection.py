"""Box detection: COCOeval's twelve numbers, bit for bit, and their weighted versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.evaluation import detection_kernels as kernels
from harness.evaluation.detection_result import (
    AREA_RANGES,
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    DetectionResult,
    rank_within,
)
from harness.evaluation.detection_truth import Truth, read_truth
from harness.evaluation.predictions import Detections, read_detections

__all__ = ["DetectionResult", "evaluate"]


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
    cells, keep = _cells(images, truth.category_ids, found.image_ids, found.category_ids)
    order = np.lexsort((-found.scores[keep], cells))  # stable: equal scores stay in the file's order
    cell, chosen = cells[order], np.flatnonzero(keep)[order]
    rank = rank_within(cell)
    few = rank < MAX_DETECTIONS[-1]
    cell, chosen = cell[few], chosen[few]
    truth_cells, truth_keep = _cells(images, truth.category_ids, truth.images, truth.categories)
    truth_order = np.argsort(truth_cells, kind="stable")
    truth_cell, annotation = truth_cells[truth_order], np.flatnonzero(truth_keep)[truth_order]
    all_cells = np.union1d(cell, truth_cell)
    matched, ignored = np.zeros(len(cell), np.int64), np.zeros(len(cell), np.int64)
    counts = np.zeros((len(all_cells), kernels.AREAS), np.int32)
    kernels.match(
        np.append(np.searchsorted(cell, all_cells), len(cell)),
        np.append(np.searchsorted(truth_cell, all_cells), len(truth_cell)),
        found.boxes[chosen],
        truth.boxes[annotation],
        truth.areas[annotation],
        truth.crowd[annotation],
        AREA_RANGES,
        IOU_THRESHOLDS,
        matched,
        ignored,
        counts,
    )
    ids = np.array([str(image) for image in images.tolist()], dtype=np.str_)
    order_of_text = np.argsort(ids)
    place = np.empty(len(ids), np.int32)  # numeric order -> position in the sorted texts
    place[order_of_text] = np.arange(len(ids), dtype=np.int32)
    has_truth = np.diff(np.append(np.searchsorted(truth_cell, all_cells), len(truth_cell))) > 0
    return DetectionResult(
        ids[order_of_text],
        truth.category_ids,
        truth.category_names,
        place[cell % max(1, len(ids))],
        (cell // max(1, len(ids))).astype(np.int32),
        found.scores[chosen],
        matched,
        ignored,
        place[all_cells[has_truth] % max(1, len(ids))],
        (all_cells[has_truth] // max(1, len(ids))).astype(np.int32),
        counts[has_truth],
    )


def _cells(
    images: NDArray[np.int64], categories: NDArray[np.int64], image: NDArray[np.int64], category: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Category index times number of images plus image index of the entries on `images`; which entries these are."""
    keep = np.isin(image, images)
    i = np.searchsorted(images, image[keep])
    k = np.searchsorted(categories, category[keep])
    return k.astype(np.int64) * len(images) + i, keep
