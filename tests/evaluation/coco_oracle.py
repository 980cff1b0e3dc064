"""The official evaluator as an oracle, and random data sets that are hard to score right."""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

Truth = dict[str, Any]
Results = list[dict[str, Any]]


def official(truth: Truth, results: Results, image_ids: list[int] | None = None) -> COCOeval:
    """COCOeval, run and summarised, on copies (it writes into its input)."""
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO()
        ground_truth.dataset = copy.deepcopy(truth)
        ground_truth.createIndex()
        if results:
            detections = ground_truth.loadRes(copy.deepcopy(results))
        else:  # loadRes does not take an empty list
            detections = COCO()
            detections.dataset = {**copy.deepcopy(truth), "annotations": []}
            detections.createIndex()
        evaluator = COCOeval(ground_truth, detections, "bbox")
        if image_ids is not None:
            evaluator.params.imgIds = list(image_ids)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def random_data(
    seed: int, detections: int, annotations: int, images: int = 6, categories: int = 3
) -> tuple[Truth, Results]:
    """Ties in score and IoU, crowds, ignore flags, areas on the boundaries, empty boxes, images and categories."""
    rng = np.random.default_rng(seed)
    image_ids = rng.choice(10_000, images, replace=False).tolist()
    category_ids = rng.choice(90, categories, replace=False).tolist()

    def box() -> list[float]:
        return (
            rng.integers(0, 6, 4) * rng.choice([8, 16, 32, 10.7])
        ).tolist()  # a coarse grid: equal IoUs, empty boxes

    truth: Truth = {
        "images": [{"id": i} for i in image_ids],
        "categories": [{"id": c, "name": f"category {c}"} for c in category_ids],
        "annotations": [],
    }
    for number in range(annotations):
        bbox = box()
        edge = float(rng.choice([0, 1024, 9216, np.nextafter(1024, 0), np.nextafter(9216, 1e9), 1e10, 2e10]))
        truth["annotations"].append(
            {
                "id": number + 1,
                "image_id": int(rng.choice(image_ids)),
                "category_id": int(rng.choice(category_ids)),
                "bbox": bbox,
                "area": bbox[2] * bbox[3] if rng.random() < 0.7 else edge,
                "iscrowd": int(rng.random() < 0.2),
                "ignore": int(rng.random() < 0.2),
            }
        )
    results: Results = []
    for _ in range(detections):
        bbox, image, category = box(), int(rng.choice(image_ids)), int(rng.choice(category_ids))
        if annotations and rng.random() < 0.5:
            near = truth["annotations"][rng.integers(annotations)]
            bbox = (np.array(near["bbox"]) + rng.choice([0, 1, -1], 4) * [1, 1, 0, 0]).tolist()
            image, category = near["image_id"], near["category_id"]
        score = float(rng.choice([0.1, 0.5, 0.9])) if rng.random() < 0.5 else float(np.float32(rng.random()))
        results.append({"image_id": image, "category_id": category, "bbox": bbox, "score": score})
    return truth, results


def duplicated(truth: Truth, results: Results, times: dict[int, int]) -> tuple[Truth, Results]:
    """The data set in which each image stands `times` over, under fresh ids.

    Scores become ranks in COCOeval's order (by score, then image, then position in the file), so that copies of one
    detection tie and nothing else does.
    """
    order = sorted(range(len(results)), key=lambda n: (-results[n]["score"], results[n]["image_id"], n))
    rank = {n: float(len(results) - place) for place, n in enumerate(order)}
    bigger: Truth = {"images": [], "categories": truth["categories"], "annotations": []}
    copies: Results = []
    for image in sorted(entry["id"] for entry in truth["images"]):
        for _ in range(times[image]):
            fresh = len(bigger["images"]) + 1
            bigger["images"].append({"id": fresh})
            for annotation in truth["annotations"]:
                if annotation["image_id"] == image:
                    number = len(bigger["annotations"]) + 1
                    bigger["annotations"].append({**annotation, "id": number, "image_id": fresh})
            copies += [
                {**result, "image_id": fresh, "score": rank[n]}
                for n, result in enumerate(results)
                if result["image_id"] == image
            ]
    return bigger, copies


def undefined_as_nan(stats: NDArray[np.float64]) -> NDArray[np.float64]:
    """COCOeval's -1 as NaN."""
    return np.where(stats == -1, np.nan, stats)
