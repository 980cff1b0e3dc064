"""How images are to be resized for a backbone's weights."""

from __future__ import annotations

from typing import Any, Literal

from harness.models.backbones import BACKBONES
from harness.models.config import BackboneConfig
from harness.registry import look_up


def native_interpolation(config: BackboneConfig) -> Literal["bilinear", "bicubic"]:
    """Bicubic if the weights that a backbone starts from were trained so, else bilinear; for random weights bilinear.

    Args:
        config: The backbone section. A name that its library does not know is told when the network is built.
    """
    if not (config.pretrained or config.weights):
        return "bilinear"
    backbone: Any = look_up(BACKBONES, config.library, "backbone library")
    known = config.name.partition(".")[0] in backbone.library.names() or config.library == "open_clip"
    return "bicubic" if known and backbone.library.interpolation(config) == "bicubic" else "bilinear"
