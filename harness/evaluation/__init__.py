"""The evaluator: predictions and ground truth in, per-image statistics and numbers out. Needs no torch.

Each metric's module stands alone: ``classification.evaluate``, ``detection.evaluate``, ``segmentation.evaluate`` and
``vqa.evaluate`` return a `Result`. `result_class` finds the class that reads a record's stored statistics.
"""

from __future__ import annotations

from importlib import import_module
from typing import cast

from harness.errors import HarnessError, suggestion
from harness.evaluation.metric import Result

__all__ = ["RESULTS", "Result", "result_class"]

# Module and class by metric name; imported when asked for, so that a board of VQA entries never loads numba.
RESULTS: dict[str, tuple[str, str]] = {
    "top1": ("classification", "ClassificationResult"),
    "coco_bbox": ("detection", "DetectionResult"),
    "cityscapes_iou": ("segmentation", "SegmentationResult"),
    "vqa_v2": ("vqa", "VqaResult"),
}


def result_class(metric: str) -> type[Result]:
    """The class that holds a metric's statistics.

    Args:
        metric: ``top1``, ``coco_bbox``, ``cityscapes_iou`` or ``vqa_v2``.

    Raises:
        HarnessError: No such metric.
    """
    if metric not in RESULTS:
        raise HarnessError(f"metric: {metric!r} is not a metric{suggestion(metric, RESULTS)}")
    module, name = RESULTS[metric]
    return cast("type[Result]", getattr(import_module(f"{__name__}.{module}"), name))
