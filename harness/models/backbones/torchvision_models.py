"""torchvision's classification models as image backbones."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from torchvision.transforms.v2 import InterpolationMode

from harness.models.backbones.base import ImageBackbone
from harness.models.backbones.positions import resampled
from harness.models.backbones.structure import Unsuitable
from harness.models.config import BackboneConfig

_EXPANDED = ("features", "layers", "trunk_output", "blocks")
_NUMBERED = ("layer", "stage", "conv5", "inception", "Mixed")  # ResNet, ShuffleNet, GoogLeNet, Inception
_HEADS = ("fc", "classifier", "head", "heads")
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Torchvision:
    """torchvision as `harness.models.backbones.structure.Library`."""

    name = "torchvision"

    def names(self) -> Collection[str]:
        """Classification models."""
        return _models()

    def tagged(self) -> Collection[str]:
        """Those with weights."""
        return {name for name in _models() if len(torchvision.models.get_model_weights(name))}

    def growths(self) -> Sequence[Mapping[str, Any]]:
        """Nothing to ask for; GoogLeNet's auxiliary classifiers are left out."""
        return ({"aux_logits": False}, {})

    def create(self, config: BackboneConfig, growth: Mapping[str, Any]) -> nn.Module:
        """A model without classifier."""
        return _without_classifier(torchvision.models.get_model(config.name, weights=None, **config.options, **growth))

    def pretrained(self, config: BackboneConfig, growth: Mapping[str, Any]) -> nn.Module:
        """The same with downloaded weights: those of the tag, e.g. ``resnet50.IMAGENET1K_V1``, or the newest."""
        name, _, tag = config.name.partition(".")
        # With weights torchvision sets auxiliary classifiers up itself, and takes no argument about them.
        model = torchvision.models.get_model(name, weights=tag or "DEFAULT", **config.options)
        for auxiliary in ("aux1", "aux2", "AuxLogits"):
            if getattr(model, auxiliary, None) is not None:
                setattr(model, auxiliary, None)
                model.aux_logits = False
        return _without_classifier(model)

    def stages(self, body: nn.Module) -> list[tuple[str, int | None]]:
        """The top-level modules up to the last stage, and the parts of the containers that hold stages."""
        if isinstance(body, VisionTransformer):
            blocks = body.encoder.layers.named_children()
            return [(f"encoder.layers.{name}", body.patch_size) for name, _ in blocks]
        children = dict(body.named_children())
        # What follows the container of the stages norms, permutes and pools.
        last = max(index for index, name in enumerate(children) if name in _EXPANDED or name.startswith(_NUMBERED))
        names = []
        for name, child in list(children.items())[: last + 1]:
            names += [f"{name}.{part}" for part, _ in child.named_children()] if name in _EXPANDED else [name]
        return [(name, None) for name in names]

    def native_size(self, config: BackboneConfig, body: Any) -> int:
        """Where the model has a size at all, as it was built."""
        return int(getattr(body, "image_size", 224))

    def pooled(self, body: Any, images: Tensor) -> Tensor:
        """What the last linear layer would get."""
        if not isinstance(body, VisionTransformer):
            return body(images)
        # As VisionTransformer.forward, but with position embeddings for these images.
        patches = body.conv_proj(images)
        grid = (patches.shape[2], patches.shape[3])
        known = body.image_size // body.patch_size
        sequence = torch.cat([body.class_token.expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], 1)
        sequence = sequence + resampled(body.encoder.pos_embedding[0], (known, known), grid, 1)
        sequence = body.encoder.ln(body.encoder.layers(body.encoder.dropout(sequence)))
        return body.heads(sequence[:, 0])

    def normalization(self, config: BackboneConfig, body: Any) -> tuple[Sequence[float], Sequence[float]]:
        """Of the weights' training."""
        if getattr(body, "transform_input", None) is not None:
            # GoogLeNet and Inception turn ImageNet's constants into these inside the model, if told to.
            body.transform_input = False
            return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
        name, _, tag = config.name.partition(".")
        weights = torchvision.models.get_model_weights(name)
        if not len(weights):
            return _IMAGENET
        recipe = (weights[tag] if tag else weights.DEFAULT).transforms()
        return recipe.mean, recipe.std

    def interpolation(self, config: BackboneConfig) -> str:
        """Of the weights' training."""
        name, _, tag = config.name.partition(".")
        weights = torchvision.models.get_model_weights(name)
        if not len(weights) or (tag and tag not in weights.__members__):
            return ""
        mode: InterpolationMode = (weights[tag] if tag else weights.DEFAULT).transforms().interpolation
        return mode.value

    def adapt(self, body: nn.Module, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """The last linear layer and auxiliary classifiers are dropped; DenseNets' old names are translated."""
        state = {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in state.items()}
        own = set(body.state_dict())
        dropped = [
            key for key in state if key not in own and (key.split(".")[0] in _HEADS or key.startswith(_AUXILIARY))
        ]
        return {key: value for key, value in state.items() if key not in set(dropped)}, dropped


class TorchvisionBackbone(ImageBackbone):
    """A torchvision classification model."""

    library = Torchvision()


@cache
def _models() -> frozenset[str]:
    return frozenset(torchvision.models.list_models(module=torchvision.models))


def _without_classifier(model: nn.Module) -> nn.Module:
    """Replace the last linear layer, and a dropout right before it, by nothing."""
    name, head = next((name, getattr(model, name)) for name in reversed(_HEADS) if hasattr(model, name))
    if isinstance(head, nn.Linear):
        setattr(model, name, nn.Identity())
        if isinstance(getattr(model, "dropout", None), nn.Dropout):
            model.dropout = nn.Identity()
        return model
    parts = list(head.named_children())
    last = max((i for i, (_, part) in enumerate(parts) if isinstance(part, nn.Linear)), default=None)
    if last is None:
        raise Unsuitable("it classifies by a convolution, so it has no pooled feature")
    setattr(head, parts[last][0], nn.Identity())
    if last and isinstance(parts[last - 1][1], nn.Dropout):
        setattr(head, parts[last - 1][0], nn.Identity())
    return model
