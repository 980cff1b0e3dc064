"""open_clip's image towers as image backbones, and whole CLIP models for their text towers."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any

import open_clip
import orjson
import timm
import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower, convert_to_custom_text_state_dict
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from torch import Tensor, nn

from harness.errors import HarnessError
from harness.models.backbones.base import ImageBackbone
from harness.models.backbones.positions import resampled
from harness.models.backbones.timm_models import Timm
from harness.models.backbones.weights import load_weights, read_weights
from harness.models.config import BackboneConfig
from harness.models.weight_files import LOCAL_DIR, find_weights

Tokenizer = Callable[..., Tensor]
Clip = tuple[nn.Module, Tokenizer]

_VISUAL = "visual."
_MAX_CONFIG = 1_000_000  # bytes


def build_clip(config: BackboneConfig) -> Clip:
    """A whole CLIP model, both towers with the weights that the config names, and its tokenizer.

    Args:
        config: ``library: open_clip``. Freezing is left to the caller.

    Returns:
        An open_clip model in float32 on the CPU, and a function from a list of texts to int64 [B, context].

    Raises:
        HarnessError: open_clip does not know the name, the weights do not fit or cannot be had, or the text tower or
            tokenizer needs a download that fails.
    """
    description = _description(config)
    name = config.name.partition(".")[0]
    source = f"{LOCAL_DIR}{find_weights(config.weights or '').file.parent}" if _has_own_config(config) else name
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)  # random weights are what was asked for, and errors are told below
    try:
        if config.pretrained:
            model = open_clip.create_model(name, pretrained=_tag(config), require_pretrained=True)
        else:
            parts = {key: value for key, value in description.items() if key not in _BUILDER_KEYS}
            if parts["text_cfg"].get("hf_model_name"):
                parts["text_cfg"]["hf_model_pretrained"] = False
            model = open_clip.create_model(source, load_weights=False, pretrained_text=False, **parts)
        tokenizer = open_clip.get_tokenizer(source, context_length=description["text_cfg"].get("context_length"))
    except Exception as error:  # every hub client has its own family of network errors
        raise HarnessError(
            f"model.backbone.name: open_clip cannot build {config.name!r} with its text tower and tokenizer"
            f" ({_first_line(error)}); download what it needs once where there is a network, or take another model"
        ) from None
    finally:
        logging.disable(previous)
    if config.weights is not None:
        file = find_weights(config.weights).file
        state = read_weights(file)
        if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
            state = convert_to_custom_text_state_dict(state)
        load_weights(model, state, str(file), config.allow_mismatch)
    return model, tokenizer


def image_tower(whole: Callable[[], Clip], config: BackboneConfig, growth: Mapping[str, Any]) -> nn.Module:
    """The image tower of a whole CLIP model, made to take images of any size.

    Args:
        whole: Gives the model, as `build_clip` does; its tower is changed in place.
        config: What the model is built from.
        growth: Builder arguments (see `structure.Library`).
    """
    tower: Any = whole()[0].visual
    if isinstance(tower, TimmModel) and growth:
        description = _description(config)
        _grow(tower, CLIPVisionCfg(**description["vision_cfg"]), description["embed_dim"], growth)
    return tower


class OpenClip:
    """open_clip's image towers as `harness.models.backbones.structure.Library`."""

    name = "open_clip"

    def names(self) -> Collection[str]:
        """Models whose description open_clip ships."""
        return _models()

    def tagged(self) -> Collection[str]:
        """Those with weights."""
        return {name for name, _ in open_clip.list_pretrained()}

    def growths(self) -> Sequence[Mapping[str, Any]]:
        """Towers from timm grow as timm's models do."""
        return Timm().growths()

    def create(self, config: BackboneConfig, growth: Mapping[str, Any]) -> nn.Module:
        """An image tower with its projection, which belongs to it."""
        description = _description(config)
        vision = CLIPVisionCfg(**description["vision_cfg"])
        if vision.timm_model_name is None and growth:
            raise TypeError("only timm models take builder arguments")
        tower = _build_vision_tower(description["embed_dim"], vision, description.get("quick_gelu", False))
        if isinstance(tower, TimmModel) and growth:
            _grow(tower, vision, description["embed_dim"], growth)
        return tower

    def pretrained(self, config: BackboneConfig, growth: Mapping[str, Any]) -> nn.Module:
        """The same with downloaded weights: those of the tag, e.g. ``ViT-B-32.openai``, or the first that is listed."""
        tower = self.create(config, growth)
        name = config.name.partition(".")[0]
        whole = open_clip.create_model(name, pretrained=_tag(config), require_pretrained=True)
        tower.load_state_dict(whole.visual.state_dict())
        return tower

    def stages(self, body: nn.Module) -> list[tuple[str, int | None]]:
        """ResNets have layers, plain transformers blocks, and towers from timm what timm says."""
        if isinstance(body, TimmModel):
            return [(f"trunk.{name}", stride) for name, stride in Timm().stages(body.trunk)]
        if isinstance(body, ModifiedResNet):
            return [("act3", 2), *((f"layer{index + 1}", 4 << index) for index in range(4))]
        patch: Any = body.patch_size
        return [(f"transformer.resblocks.{index}", int(patch[0])) for index in range(len(body.transformer.resblocks))]  # type: ignore[arg-type, union-attr]

    def native_size(self, config: BackboneConfig, body: Any) -> int:
        """Of the weights' training."""
        size = body.image_size
        return int(size[0] if isinstance(size, (tuple, list)) else size)

    def pooled(self, body: Any, images: Tensor) -> Tensor:
        """The image embedding, as `encode_image` gives it before it is normalised."""
        if isinstance(body, TimmModel):
            return body(images)
        if isinstance(body, ModifiedResNet):
            features = body.layer4(body.layer3(body.layer2(body.layer1(body.stem(images)))))
            return _attention_pool(body.attnpool, features)
        # As VisionTransformer.forward, but with position embeddings for these images.
        patches = body.conv1(images)
        grid = (patches.shape[2], patches.shape[3])
        first = body.class_embedding.to(patches.dtype).expand(len(images), 1, -1)
        sequence = torch.cat([first, patches.flatten(2).transpose(1, 2)], 1)
        sequence = sequence + resampled(body.positional_embedding, body.grid_size, grid, 1).to(patches.dtype)
        sequence = body.transformer(body.ln_pre(body.patch_dropout(sequence)))
        pooled, _ = body._pool(sequence)
        return pooled @ body.proj if body.proj is not None else pooled

    def normalization(self, config: BackboneConfig, body: nn.Module) -> tuple[Sequence[float], Sequence[float]]:
        """Of the weights' training: of the tag, of the folder, or else of the model's first tag."""
        recipe = _recipe(config)
        return (
            recipe.get("mean") or open_clip.OPENAI_DATASET_MEAN,
            recipe.get("std") or open_clip.OPENAI_DATASET_STD,
        )

    def interpolation(self, config: BackboneConfig) -> str:
        """Of the weights' training; bicubic, as open_clip's default is, unless the recipe says otherwise."""
        return str(_recipe(config).get("interpolation") or "bicubic")

    def adapt(self, body: nn.Module, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Of a whole CLIP model the text tower is dropped."""
        if not any(key.startswith(_VISUAL) for key in state):
            return state, []
        own = {key.removeprefix(_VISUAL): value for key, value in state.items() if key.startswith(_VISUAL)}
        return own, [key for key in state if not key.startswith(_VISUAL)]


class OpenClipBackbone(ImageBackbone):
    """The image tower of an open_clip model; its pooled feature is the image embedding."""

    library = OpenClip()


_BUILDER_KEYS = ("custom_text", "multimodal_cfg")


@cache
def _models() -> frozenset[str]:
    return frozenset(open_clip.list_models())


def _description(config: BackboneConfig) -> dict[str, Any]:
    """open_clip's description of the model, with the options put in."""
    name = config.name.partition(".")[0]
    found = _read_config(config)["model_cfg"] if _has_own_config(config) else open_clip.get_model_config(name)
    if found is None:
        raise HarnessError(f"model.backbone.name: open_clip knows no model {name!r} (harness ls backbones)")
    description: dict[str, Any] = copy.deepcopy(found)
    for key, value in config.options.items():
        if isinstance(value, dict):
            if key not in ("vision_cfg", "text_cfg"):
                raise TypeError(f"{key!r} is neither vision_cfg nor text_cfg")
            description[key] |= value
        else:
            description[key] = value
    description["vision_cfg"]["timm_model_pretrained"] = False  # weights come from where the submission says
    return description


def _has_own_config(config: BackboneConfig) -> bool:
    return config.weights is not None and find_weights(config.weights).config is not None


def _read_config(config: BackboneConfig) -> dict[str, Any]:
    path = find_weights(config.weights or "").config
    try:
        if path is None or path.stat().st_size > _MAX_CONFIG:
            raise ValueError("it is too large")
        found = orjson.loads(path.read_bytes())
        if not isinstance(found["model_cfg"]["vision_cfg"], dict) or not isinstance(
            found["model_cfg"]["text_cfg"], dict
        ):
            raise ValueError("vision_cfg and text_cfg must be mappings")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HarnessError(
            f"model.backbone.weights: {path} is not an open_clip configuration ({_first_line(error)});"
            " it needs model_cfg with vision_cfg and text_cfg"
        ) from None
    return found


def _recipe(config: BackboneConfig) -> Mapping[str, Any]:
    """How images are prepared for the weights: of the folder, of the tag, or else of the model's first tag."""
    if _has_own_config(config):
        found = _read_config(config).get("preprocess_cfg", {})
        return found if isinstance(found, dict) else {}
    tag = _tag(config)
    return open_clip.get_pretrained_cfg(config.name.partition(".")[0], tag) if tag else {}


def _tag(config: BackboneConfig) -> str:
    name, _, tag = config.name.partition(".")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag and tag not in tags:
        raise HarnessError(
            f"model.backbone.name: open_clip has no weights {tag!r} for {name}; it has {', '.join(tags) or 'none'}"
        )
    return tag or (tags[0] if tags else "")


def _grow(tower: TimmModel, vision: CLIPVisionCfg, embed_dim: int, growth: Mapping[str, Any]) -> None:
    """Replace the tower's timm model by one that takes any image size, with the very same weights.

    open_clip hands timm no such argument. What follows is its own way of asking for a model without classifier.
    """
    pool, projected = vision.timm_pool, vision.timm_proj in ("linear", "mlp")
    attentive = pool in ("abs_attn", "rot_attn")
    rates = {"drop_path_rate": vision.timm_drop_path, "patch_drop_rate": vision.patch_dropout or None}
    growth = {**growth, **{key: rate for key, rate in rates.items() if rate is not None}}
    trunk: Any
    with torch.random.fork_rng(devices=[]):
        if projected or attentive:
            trunk = timm.create_model(vision.timm_model_name, **growth)
            trunk.reset_classifier(0, **({"global_pool": "" if attentive else pool} if pool or attentive else {}))
        else:
            outputs = 0 if vision.timm_proj == "none" else embed_dim
            trunk = timm.create_model(vision.timm_model_name, num_classes=outputs, global_pool=pool, **growth)
    trunk.load_state_dict(tower.trunk.state_dict(), strict=not any(p.is_meta for p in trunk.parameters()))
    tower.trunk = trunk


def _attention_pool(pool: Any, features: Tensor) -> Tensor:
    """CLIP's attention pooling, with position embeddings for these maps."""
    known = round((len(pool.positional_embedding) - 1) ** 0.5)
    own = pool.positional_embedding
    grid = (features.shape[2], features.shape[3])
    if grid == (known, known):
        return pool(features)
    wanted = resampled(own, (known, known), grid, 1)
    return torch.func.functional_call(pool, {"positional_embedding": wanted}, (features,))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
