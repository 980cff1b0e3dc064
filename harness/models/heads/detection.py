"""What the detection heads share: labels, sizes, and the way back to the original image."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from harness.data.batches import DetectionBatch

Found = dict[str, Tensor]


def targets_of(batch: DetectionBatch) -> list[Found]:
    """Boxes and labels as torchvision's detectors take them: their label 0 is the background."""
    return [{"boxes": boxes, "labels": labels + 1} for boxes, labels in zip(batch.boxes, batch.labels, strict=True)]


def contents_of(batch: DetectionBatch) -> Tensor:
    """int64 [B, 2], height and width of every image without its padding."""
    if batch.contents is not None:
        return batch.contents
    return batch.sizes.new_tensor(batch.images.shape[-2:]).expand(len(batch.images), 2)


def in_original_images(detections: Sequence[Found], batch: DetectionBatch) -> list[Found]:
    """Torchvision's detections as ours.

    Args:
        detections: B dicts ``boxes`` (pixels of the batch's images), ``scores``, ``labels`` (from 1; 0 is dropped).
        batch: Tells the images' sizes.

    Returns:
        B dicts: ``boxes`` float [M, 4] xyxy in pixels of the original images, ``scores`` float [M] descending,
        ``labels`` int64 [M], 0 to C-1.
    """
    results = []
    for found, size, content in zip(detections, batch.sizes, contents_of(batch), strict=True):
        scale = (size / content).flip(0).repeat(2)  # x, y, x, y
        real = found["labels"] > 0
        results.append(
            {
                "boxes": found["boxes"][real] * scale,
                "scores": found["scores"][real],
                "labels": found["labels"][real] - 1,
            }
        )
    return results
