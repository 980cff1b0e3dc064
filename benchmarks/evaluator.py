"""Speed of the evaluators as ratios against their peers, measured in the same run on the same machine.

Usage: python benchmarks/evaluator.py [--quick]

Detection stands against pycocotools (the whole of COCOeval; results are also compared bit for bit), segmentation
against counting with numpy's bincount, the bootstrap against one COCOeval.accumulate per draw.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from harness.evaluation import detection
from harness.evaluation.resampling import draw_weights
from harness.evaluation.segmentation_kernels import count_pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of COCO val2017's size")
    scale = 10 if parser.parse_args().quick else 1
    print(f"{'what':<58}{'peer':>10}{'ours':>10}{'ratio':>8}")
    detection_rows(5000 // scale, 36_000 // scale, 500_000 // scale, 1000 // scale)
    segmentation_rows(40 // scale)


def row(what: str, peer: float, ours: float) -> None:
    print(f"{what:<58}{peer:>9.3f}s{ours:>9.3f}s{peer / ours:>7.1f}x")


def cpu_seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.process_time()
    result = call()
    return time.process_time() - begun, result


def detection_rows(images: int, annotations: int, detections: int, draws: int) -> None:
    truth, results = synthetic_coco(images, annotations, detections)
    with tempfile.TemporaryDirectory() as folder:
        truth_path, results_path = Path(folder) / "truth.json", Path(folder) / "results.json"
        truth_path.write_text(json.dumps(truth))
        results_path.write_text(json.dumps(results))

        def official() -> COCOeval:
            with contextlib.redirect_stdout(io.StringIO()):
                ground_truth = COCO(str(truth_path))
                evaluator = COCOeval(ground_truth, ground_truth.loadRes(str(results_path)), "bbox")
                evaluator.evaluate()
                evaluator.accumulate()
                evaluator.summarize()
            return evaluator

        def own() -> detection.DetectionResult:
            result = detection.evaluate(truth_path, results_path)
            result.stats  # noqa: B018 - computed when asked for
            return result

        own().reduce_many(draw_weights(images, 1, 0))  # compile
        ours, result = cpu_seconds(own)
        peer, evaluator = cpu_seconds(official)
    assert np.array_equal(result.precision, evaluator.eval["precision"])
    assert np.array_equal(result.stats, evaluator.stats)
    row(f"12 COCO numbers from files, {images} images, {detections} boxes", peer, ours)
    weights = draw_weights(images, draws, 0)
    ours, _ = cpu_seconds(lambda: result.reduce_many(weights))
    with contextlib.redirect_stdout(io.StringIO()):
        peer, _ = cpu_seconds(evaluator.accumulate)
    row(f"bootstrap, {draws} draws of 12 numbers (peer: 1 draw x {draws})", peer * draws, ours)


def segmentation_rows(images: int) -> None:
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 34, (images, 64, 128)).astype(np.uint8)
    maps = [one.repeat(16, 0).repeat(16, 1) for one in coarse]
    moved = [np.roll(one, 3, axis=1) for one in maps]

    def bincount() -> Any:
        for a, b in zip(maps, moved, strict=True):
            found = np.bincount(a.ravel().astype(np.int64) * 34 + b.ravel(), minlength=34 * 34)
        return found

    def own() -> Any:
        for a, b in zip(maps, moved, strict=True):
            found = count_pairs(a, b)
        return found

    own()
    (peer, expected), (ours, found) = cpu_seconds(bincount), cpu_seconds(own)
    assert np.array_equal(found[:34, :34].ravel(), expected)
    row(f"segmentation counts, {images} maps of 1024 x 2048 ({images / ours:,.0f} maps/s)", peer, ours)


def synthetic_coco(images: int, annotations: int, detections: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A data set of COCO's shape: 80 categories of falling frequency, 85% of the boxes found, many false ones."""
    generator = np.random.default_rng(0)
    categories = np.sort(generator.choice(np.arange(1, 91), 80, replace=False))
    frequency = 1 / np.arange(1, 81) ** 0.9
    canvas = np.array([640, 480])

    def boxes(count: int) -> tuple[Any, Any, Any]:
        sides = np.exp(generator.normal(4, 1, (count, 2))).clip(4, 400)
        corners = generator.random((count, 2)) * (canvas - sides).clip(1)
        kinds = generator.choice(categories, count, p=frequency / frequency.sum())
        return generator.integers(1, images + 1, count), kinds, np.hstack([corners, sides]).round(2)

    of_image, kinds, true = boxes(annotations)
    crowd = generator.random(annotations) < 0.01
    truth = {
        "images": [{"id": n + 1, "width": 640, "height": 480} for n in range(images)],
        "categories": [{"id": int(k), "name": str(k)} for k in categories],
        "annotations": [
            {
                "id": n + 1,
                "image_id": int(of_image[n]),
                "category_id": int(kinds[n]),
                "bbox": true[n].tolist(),
                "area": float(true[n, 2] * true[n, 3] * 0.6),
                "iscrowd": int(crowd[n]),
            }
            for n in range(annotations)
        ],
    }
    found = np.flatnonzero(generator.random(annotations) < 0.85)
    near = true[found] + generator.normal(0, 0.06, (len(found), 4)) * np.tile(true[found, 2:], 2)
    false_image, false_kind, false_boxes = boxes(detections - len(found))
    columns = zip(
        np.append(of_image[found], false_image).tolist(),
        np.append(kinds[found], false_kind).tolist(),
        np.vstack([near.clip(1), false_boxes]).round(2).tolist(),
        (1 / (1 + np.exp(-np.append(generator.normal(0.5, 1, len(found)), generator.normal(-3, 1, len(false_kind))))))
        .round(4)
        .tolist(),
        strict=True,
    )
    return truth, [{"image_id": i, "category_id": k, "bbox": b, "score": s} for i, k, b, s in columns]


if __name__ == "__main__":
    main()
