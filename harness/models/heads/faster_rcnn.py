"""Detection head: torchvision's Faster R-CNN on our pyramid."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper

from harness.data.batches import DetectionBatch
from harness.errors import HarnessError
from harness.models.config import FasterRcnnConfig
from harness.models.features import Features, FeatureShape
from harness.models.heads.detection import Found, contents_of, in_original_images, targets_of
from harness.models.heads.head import Head
from harness.models.placeholders import TokenStream

ASPECTS = (0.5, 1.0, 2.0)
POOLED = 7  # side of a region's features
BEFORE_NMS = 2000  # regions per level and image in training; half as many in prediction


class FasterRcnnHead(Head):
    """Detection: Faster R-CNN (Ren 2015) with torchvision's region proposals and box head.

    As torchvision has it, one level more, subsampled from the coarsest, is searched for regions (Lin 2017).

    Args:
        config: Options.
        shape: Feature sizes.
        classes: C; torchvision's label 0 is the background.

    Raises:
        HarnessError: The pyramid's strides do not double from level to level.
    """

    exclusive = False

    def __init__(self, config: FasterRcnnConfig, shape: FeatureShape, classes: int) -> None:
        super().__init__()
        strides = shape.strides
        if any(coarse != 2 * fine for fine, coarse in pairwise(strides)):
            raise HarnessError(
                f"model.neck.strides: faster_rcnn picks a region's level by its size, so strides must double, e.g."
                f" [4, 8, 16, 32], but are {list(strides)}"
            )
        sides = [(round(config.anchor_scale * stride),) for stride in (*strides, 2 * strides[-1])]
        anchors = AnchorGenerator(tuple(sides), (ASPECTS,) * len(sides))
        kept = {"training": 2 * config.proposals, "testing": config.proposals}
        self._rpn = RegionProposalNetwork(
            anchors,
            RPNHead(shape.channels, len(ASPECTS)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": BEFORE_NMS, "testing": BEFORE_NMS // 2},
            post_nms_top_n=kept,
            nms_thresh=0.7,
        )
        names = [str(stride) for stride in strides]
        pool = MultiScaleRoIAlign(names, POOLED, sampling_ratio=2)
        # Left to itself the pooler infers scales from the first batch's image sizes, and wrongly where images are
        # smaller than the canvas that they are padded to.
        pool.scales = [1 / stride for stride in strides]
        pool.map_levels = initLevelMapper(*(stride.bit_length() - 1 for stride in (strides[0], strides[-1])))
        self._regions = RoIHeads(
            pool,
            TwoMLPHead(shape.channels * POOLED**2, config.width),
            FastRCNNPredictor(config.width, classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=config.samples,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=config.score_threshold,
            nms_thresh=config.nms_threshold,
            detections_per_img=config.detections,
        )

    def loss(self, features: Features, batch: DetectionBatch) -> Tensor:
        """Sum of the two losses of the proposals and the two of the regions, a scalar."""
        targets = targets_of(batch)
        self._rpn.train()  # torchvision computes losses by mode; nothing inside depends on it otherwise
        with torch.autocast(batch.images.device.type, enabled=False):
            levels, proposals, losses = self._proposals(features, batch, targets)
            regions, _, labels, offsets = self._regions.select_training_samples(proposals, targets)
            logits, boxes = self._scores(levels, regions, features.stream)
            found = fastrcnn_loss(logits, boxes, labels, offsets)
            self.note(lambda: (logits.argmax(1) == torch.cat(labels)).float().mean())
        return torch.stack([*losses.values(), *found]).sum()

    def count(self, batch: DetectionBatch) -> int:
        """The images.

        `loss` is a sum of means over anchors and regions that are drawn at random, a fixed number of each image as a
        rule, so parts of a batch weigh by their images. Since every process draws for itself, one process and several
        agree in distribution only.
        """
        return len(batch.ids)

    def predict(self, features: Features, batch: DetectionBatch) -> list[Found]:
        """Detections in pixels of the original images; see `in_original_images`."""
        self._rpn.eval()
        with torch.autocast(batch.images.device.type, enabled=False):
            levels, proposals, _ = self._proposals(features, batch, None)
            logits, offsets = self._scores(levels, proposals, features.stream)
            shapes = _shapes(batch)
            parts = self._regions.postprocess_detections(logits, offsets, proposals, shapes)
        found = [{"boxes": b, "scores": s, "labels": n} for b, s, n in zip(*parts, strict=True)]
        return in_original_images(found, batch)

    def output_channels(self, classes: int) -> int:
        """The shapes of anchors at a position: which class it is, is not told of positions."""
        return len(ASPECTS)

    def outputs(self, features: Features, batch: DetectionBatch) -> tuple[Tensor, ...]:
        """Logits of an object, of whatever class, at every level, finest first: float [B, aspects, h, w] each.

        Classes are only told of regions, which are found in these maps.
        """
        with torch.autocast(batch.images.device.type, enabled=False):
            logits, _ = self._rpn.head([level.float() for level in features.pyramid.values()])
        return tuple(logits)

    def _proposals(
        self, features: Features, batch: DetectionBatch, targets: list[Found] | None
    ) -> tuple[dict[str, Tensor], list[Tensor], dict[str, Tensor]]:
        levels = OrderedDict((str(stride), level.float()) for stride, level in features.pyramid.items())
        extra = F.max_pool2d(next(reversed(levels.values())), 1, 2)
        images = ImageList(batch.images, _shapes(batch))  # proposals are clipped to the content
        proposals, losses = self._rpn(images, OrderedDict([*levels.items(), ("extra", extra)]), targets)
        return levels, proposals, losses

    def _scores(
        self, levels: dict[str, Tensor], regions: list[Tensor], stream: TokenStream | None
    ) -> tuple[Tensor, Tensor]:
        """Class logits float [R, C+1] and box offsets float [R, 4(C+1)] of all R regions of the batch."""
        pooled = self._regions.box_roi_pool(levels, regions, [])
        logits, offsets = self._regions.box_predictor(self._regions.box_head(pooled))
        if stream is not None:
            counts = torch.tensor([len(part) for part in regions], device=logits.device)
            image = torch.repeat_interleave(torch.arange(len(regions), device=logits.device), counts)
            one = stream.shift(logits.new_zeros(len(regions), logits.shape[1] - 1))
            logits = torch.cat([logits[:, :1], logits[:, 1:] + one[image].float()], dim=1)
        return logits, offsets


def _shapes(batch: DetectionBatch) -> list[tuple[int, int]]:
    return [(height, width) for height, width in contents_of(batch).tolist()]
