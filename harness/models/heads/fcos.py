"""Detection head: torchvision's FCOS on our pyramid."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.models.detection.image_list import ImageList

from harness.data.batches import DetectionBatch
from harness.models.config import FcosConfig
from harness.models.features import Features, FeatureShape
from harness.models.heads.detection import Found, contents_of, in_original_images, targets_of
from harness.models.heads.head import Head


class FcosHead(Head):
    """Detection: FCOS (Tian 2019) as torchvision has it: focal + GIoU + centerness losses, class-wise NMS.

    Args:
        config: Options.
        shape: Feature sizes.
        classes: C; torchvision's labels start at 1, so index 0 of its classifier stays unused.
    """

    exclusive = False

    def __init__(self, config: FcosConfig, shape: FeatureShape, classes: int) -> None:
        super().__init__()
        self._strides = shape.strides
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
        outputs, anchors = self._outputs(features, batch.images)
        losses = self._fcos.compute_loss(targets_of(batch), outputs, anchors, _positions(features))
        offset = losses["bbox_regression"]  # the mean of 1 - GIoU over positions with a box, from 0 to 2
        self.note(lambda: (1 - offset.clamp(max=2) / 2) * (offset > 0))  # 0 without such a position
        return torch.stack(list(losses.values())).sum()

    def count(self, batch: DetectionBatch) -> int:
        """The positions that have a box to predict, over which `loss` is a mean.

        Which they are follows from the boxes and the images' size alone, by torchvision's own matching.
        """
        height, width = batch.images.shape[-2:]
        grids = [(-(-height // stride), -(-width // stride)) for stride in self._strides]
        levels = [torch.empty(1, 1, *grid, device=batch.images.device) for grid in grids]
        anchors = self._anchors(batch.images, levels)
        positions = [level[0, 0].numel() for level in levels]
        matching = SimpleNamespace(head=_Matches(), center_sampling_radius=self._fcos.center_sampling_radius)
        found: dict[str, int] = FCOS.compute_loss(matching, targets_of(batch), {}, anchors, positions)
        return found["positions"]

    def predict(self, features: Features, batch: DetectionBatch) -> list[Found]:
        """Detections in pixels of the original images; see `in_original_images`."""
        outputs, anchors = self._outputs(features, batch.images)
        positions = _positions(features)
        split = {name: list(value.split(positions, dim=1)) for name, value in outputs.items()}
        shapes = [(height, width) for height, width in contents_of(batch).tolist()]  # boxes are clipped to these
        detections = self._fcos.postprocess_detections(split, [list(a.split(positions)) for a in anchors], shapes)
        return in_original_images(detections, batch)

    def outputs(self, features: Features, batch: DetectionBatch) -> tuple[Tensor, ...]:
        """Logits of the classes at every level, finest first: float [B, C, h, w] each."""
        outputs, _ = self._outputs(features, batch.images)
        levels = outputs["cls_logits"][..., 1:].split(_positions(features), dim=1)
        sizes = [level.shape[-2:] for level in features.pyramid.values()]
        return tuple(level.transpose(1, 2).unflatten(2, size) for level, size in zip(levels, sizes, strict=True))

    def _outputs(self, features: Features, images: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        # Losses and box decoding are not safe in half precision.
        with torch.autocast(images.device.type, enabled=False):
            levels = [level.float() for level in features.pyramid.values()]
            outputs = self._fcos.head(levels)
            if features.stream is not None:  # index 0 is unused, and is never predicted
                classes = outputs["cls_logits"]
                shifted = features.stream.shift(classes[..., 1:], dim=2).float()
                outputs["cls_logits"] = torch.cat([classes[..., :1], shifted], dim=2)
            return outputs, self._anchors(images, levels)

    def _anchors(self, images: Tensor, levels: list[Tensor]) -> list[Tensor]:
        return self._fcos.anchor_generator(ImageList(images, [tuple(images.shape[-2:])] * len(images)), levels)


class _Matches:
    """Stands where `FCOS.compute_loss` has its head: counts what was matched."""

    def compute_loss(self, targets: object, outputs: object, anchors: object, matched: list[Tensor]) -> dict[str, int]:
        return {"positions": int(torch.stack([(one >= 0).sum() for one in matched]).sum())}


class _Channels(nn.Module):
    """FCOS asks its backbone for one thing only when head and features are given: the number of channels."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels


def _positions(features: Features) -> list[int]:
    return [level.shape[-2] * level.shape[-1] for level in features.pyramid.values()]
