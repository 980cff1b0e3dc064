"""Any timm model with feature stages as an image backbone."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

import timm
from torch import Tensor, nn

from harness.models.backbones.base import ImageBackbone
from harness.models.config import BackboneConfig


class Timm:
    """timm as `harness.models.backbones.structure.Library`."""

    name = "timm"

    def names(self) -> Collection[str]:
        """Architectures, without tags."""
        return _architectures()

    def tagged(self) -> Collection[str]:
        """Architectures with weights."""
        return {name.split(".")[0] for name in timm.list_models(pretrained=True)}

    def growths(self) -> Sequence[Mapping[str, Any]]:
        """Plain transformers resample their position embeddings, window attention makes its masks anew."""
        return ({"dynamic_img_size": True}, {"strict_img_size": False}, {})

    def create(self, config: BackboneConfig, growth: Mapping[str, Any], pretrained: bool = False) -> nn.Module:
        """A model without classifier."""
        arguments: dict[str, Any] = {**config.options, **growth}
        if reserved := {"num_classes", "pretrained"} & set(config.options):
            raise TypeError(f"{reserved.pop()!r} is set by the harness")
        return timm.create_model(config.name, pretrained=pretrained, num_classes=0, **arguments)

    def pretrained(self, config: BackboneConfig, growth: Mapping[str, Any]) -> nn.Module:
        """The same with downloaded weights."""
        return self.create(config, growth, pretrained=True)

    def stages(self, body: nn.Module) -> list[tuple[str, int | None]]:
        """As timm's `feature_info` declares them."""
        info = getattr(body, "feature_info", None) or []
        return [(entry["module"], int(entry["reduction"])) for entry in map(dict, info) if entry.get("module")]

    def native_size(self, config: BackboneConfig, body: Any) -> int:
        """As the option ``img_size`` says, or else of the weights' training."""
        asked = config.options.get("img_size", body.pretrained_cfg["input_size"][-1])
        return int(asked[0] if isinstance(asked, tuple) else asked)

    def pooled(self, body: Any, images: Tensor) -> Tensor:
        """What the classifier would get."""
        return body.forward_head(body.forward_features(images), pre_logits=True)

    def normalization(self, config: BackboneConfig, body: Any) -> tuple[Sequence[float], Sequence[float]]:
        """Of the weights' training, by tag."""
        return body.pretrained_cfg["mean"], body.pretrained_cfg["std"]

    def interpolation(self, config: BackboneConfig) -> str:
        """Of the weights' training, by tag."""
        recipe = timm.get_pretrained_cfg(config.name)
        return recipe.interpolation if recipe is not None else ""

    def adapt(self, body: Any, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Here timm knows its models' classifiers, and translates the checkpoints of their authors."""
        if not set(body.state_dict()) <= set(state):
            translate = getattr(sys.modules[type(body).__module__], "checkpoint_filter_fn", None)
            if translate is not None:
                state = dict(translate(dict(state), body))
        heads = body.pretrained_cfg.get("classifier") or ()
        heads = (heads,) if isinstance(heads, str) else tuple(heads)
        dropped = [key for key in state if key.rpartition(".")[0] in heads]
        return {key: value for key, value in state.items() if key not in set(dropped)}, dropped


@cache
def _architectures() -> frozenset[str]:
    return frozenset(timm.list_models())


class TimmBackbone(ImageBackbone):
    """A timm model: convolutional, hierarchical or plain transformer."""

    library = Timm()
