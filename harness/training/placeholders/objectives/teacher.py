"""The frozen network that tokens are distilled from."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.data.batches import Batch
from harness.errors import HarnessError
from harness.models.backbones import BACKBONES
from harness.models.backbones.base import ImageBackbone
from harness.models.config import PlaceholderConfig
from harness.registry import look_up
from harness.training.placeholders.objectives.config import TeacherConfig

KEY = "training.placeholders.distilled.teacher"


class Teacher:
    """Pooled features of a frozen backbone, in evaluation mode. No module, so that no checkpoint holds its weights.

    Args:
        config: Which one.
        seed: Draws the weights of one that has learned nothing.

    Raises:
        HarnessError: It cannot be had.

    Attributes:
        width: C, of its pooled feature.
    """

    def __init__(self, config: TeacherConfig, seed: int) -> None:
        library = look_up(BACKBONES, config.library, "backbone library")
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self._network: ImageBackbone = library(config.still, (), PlaceholderConfig(count=0), None)
        except HarnessError as error:
            raise HarnessError(str(error).replace("model.backbone", KEY)) from None
        self._network.eval().requires_grad_(False)
        self.width = self._network.pooled_width

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Tensor:
        """float32 [B, C], on the device of the images."""
        if self._network.mean.device != batch.images.device:
            self._network.to(batch.images.device)
        return self._network(batch.images, contents=batch.contents, mapped=0).pooled.float()
