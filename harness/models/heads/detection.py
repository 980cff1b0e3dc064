"""Detection head: torchvision's FCOS on our pyramid."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.models.detection.image_list import ImageList

from harness.data.batches import DetectionBatch
from harness.models.config import DetectionHeadConfig
from harness.models.features import Features, FeatureShape


class FcosHead(nn.Module):
    """FCOS (Tian 2019) as torchvision implements it: focal + GIoU + centerness losses, class-wise NMS.

    Args:
        config: Options.
        shape: Feature sizes.
        classes: C; torchvision's labels start at 1, so index 0 of its classifier stays unused.
    """

    def __init__(self, config: DetectionHeadConfig, shape: FeatureShape, classes: int) -> None:
        super().__init__()
        # One square "anchor" per position, of the level's stride: torchvision's own convention for FCOS.
        anchors = AnchorGenerator(tuple((stride,) for stride in shape.strides), ((1.0,),) * len(shape.strides))
        self._fcos = FCOS(
            _Channels(shape.channels),
            classes + 1,
            anchor_generator=anchors,
            head=FCOSHead(shape.channels, 1, classes + 1, config.convolutions),
            score_thresh=config.score_threshold,
            nms_thresh=config.nms_threshold,
            detections_per_img=config.detections,
        )

    def loss(self, features: Features, batch: DetectionBatch) -> Tensor:
        """Sum of FCOS's three losses, a scalar."""
        levels = list(features.pyramid.values())
        outputs, anchors = self._outputs(levels, batch.images)
        targets = [
            {"boxes": boxes, "labels": labels + 1} for boxes, labels in zip(batch.boxes, batch.labels, strict=True)
        ]
        losses = self._fcos.compute_loss(targets, outputs, anchors, _positions(levels))
        return torch.stack(list(losses.values())).sum()

    def predict(self, features: Features, batch: DetectionBatch) -> list[dict[str, Tensor]]:
        """Detections in pixels of the original images.

        Returns:
            B dicts: ``boxes`` float [M, 4] xyxy, ``scores`` float [M] descending, ``labels`` int64 [M], 0 to C-1.
        """
        levels = list(features.pyramid.values())
        outputs, anchors = self._outputs(levels, batch.images)
        positions = _positions(levels)
        split = {name: list(value.split(positions, dim=1)) for name, value in outputs.items()}
        contents = batch.contents
        if contents is None:
            contents = batch.sizes.new_tensor(batch.images.shape[-2:]).expand(len(batch.images), 2)
        shapes = [(height, width) for height, width in contents.tolist()]  # boxes are clipped to these
        detections = self._fcos.postprocess_detections(split, [list(a.split(positions)) for a in anchors], shapes)
        results = []
        for found, size, content in zip(detections, batch.sizes, contents, strict=True):
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

    def _outputs(self, levels: list[Tensor], images: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        # Losses and box decoding are not safe in half precision.
        with torch.autocast(levels[0].device.type, enabled=False):
            levels = [level.float() for level in levels]
            outputs = self._fcos.head(levels)
            sizes = [tuple(images.shape[-2:])] * len(images)
            return outputs, self._fcos.anchor_generator(ImageList(images, sizes), levels)


class _Channels(nn.Module):
    """FCOS asks its backbone for one thing only when head and features are given: the number of channels."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels


def _positions(levels: list[Tensor]) -> list[int]:
    return [level.shape[-2] * level.shape[-1] for level in levels]
