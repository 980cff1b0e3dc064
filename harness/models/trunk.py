"""A backbone and the feature pyramid on top of it."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from harness.models.backbones import BACKBONES
from harness.models.backbones.base import Build
from harness.models.config import ModelConfig
from harness.models.features import Features, FeatureShape
from harness.models.placeholders import TokenStream
from harness.registry import look_up


class Trunk(nn.Module):
    """Images to features.

    Args:
        config: The model section.
        build: Builds the backbone's model, see `ImageBackbone`; None: the library does.
    """

    def __init__(self, config: ModelConfig, build: Build | None = None) -> None:
        super().__init__()
        backbone = look_up(BACKBONES, config.backbone.library, "backbone library")
        self.backbone = backbone(config.backbone, config.neck.strides, config.placeholders, build)
        channels = [self.backbone.channels[stride] for stride in config.neck.strides]
        self.neck = FeaturePyramidNetwork(channels, config.neck.channels)
        self.shape = FeatureShape(config.neck.strides, config.neck.channels, self.backbone.pooled_width)

    def forward(
        self,
        images: Tensor,
        stream: TokenStream | None,
        pyramids: int,
        contents: Tensor | None = None,
        remembered: Tensor | None = None,
    ) -> Features:
        """Encode images.

        Args:
            images: uint8 [B, 3, H, W].
            stream: Their placeholder tokens, or None.
            pyramids: For how many of the images, from the first on, the feature pyramid is needed.
            contents: int64 [B, 2], sizes of the images without padding, or None.
            remembered: int64 [B], where the backbone's features of the images lie, or None.
        """
        encoded = self.backbone(images, stream, contents, pyramids, remembered)
        levels: dict[str, Tensor] = {}
        if pyramids:
            levels = self.neck({str(stride): level for stride, level in encoded.maps.items()})
        pyramid = {int(stride): level for stride, level in levels.items()}
        return Features(pyramid, encoded.pooled, stream, dict(encoded.maps))
