"""Any timm model with `forward_intermediates` as an image backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from harness.errors import HarnessError, suggestion
from harness.models.config import BackboneConfig
from harness.models.features import padding_mask
from harness.models.placeholders import TokenStream


@dataclass
class BackboneFeatures:
    """What a backbone makes of a batch of images.

    Attributes:
        maps: float [B, C, H/stride, W/stride] by stride.
        pooled: float [B, F], pooled and normed as the library's own classifier would get it.
    """

    maps: dict[int, Tensor]
    pooled: Tensor


class TimmBackbone(nn.Module):
    """A timm model without its classifier.

    Stages are read through `forward_intermediates`, and exchange sites sit on forward hooks of the stages' modules: a
    hook's return value replaces the stage's output for everything downstream, so one mechanism serves every
    architecture.

    Args:
        config: Which model.
        strides: Feature strides that are needed.
        sites: At how many of the last stages tokens are exchanged.

    Raises:
        HarnessError: timm does not know the name, has no weights for it, or the model has no such strides.
    """

    def __init__(self, config: BackboneConfig, strides: Sequence[int], sites: int) -> None:
        super().__init__()
        if config.name.split(".")[0] not in _names():
            raise HarnessError(
                f"model.backbone.name: {config.name!r} is not a timm model"
                f"{suggestion(config.name, _names(), 'harness ls backbones')}"
            )
        self.body = _create(config)
        info = [dict(entry) for entry in self.body.feature_info]
        # Of several stages with the same stride the last one is the richest.
        stages = {entry["reduction"]: index for index, entry in enumerate(info)}
        missing = [stride for stride in strides if stride not in stages]
        if missing:
            raise HarnessError(
                f"model.neck.strides: {config.name} has no features at stride {missing[0]}; it has {sorted(stages)}"
            )
        self._strides = list(strides)
        self._indices = [stages[stride] for stride in strides]
        self.channels = {stride: int(info[stages[stride]]["num_chs"]) for stride in strides}
        # num_features is what the head pools; some models have a hidden layer between pooling and classifier.
        self.pooled_width = int(getattr(self.body, "head_hidden_size", None) or self.body.num_features)
        normalization = self.body.pretrained_cfg
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", _constant(normalization["mean"]), persistent=False)
        self.register_buffer("std", _constant(normalization["std"]), persistent=False)

        self.sites: dict[str, int] = {}
        self._stream: TokenStream | None = None
        self._contents: Tensor | None = None
        for entry in info[len(info) - sites :] if sites else []:
            name = f"backbone.{entry['module']}"
            self.sites[name] = int(entry["num_chs"])
            self.body.get_submodule(entry["module"]).register_forward_hook(self._hook(name, entry))

    def forward(
        self, images: Tensor, stream: TokenStream | None = None, contents: Tensor | None = None
    ) -> BackboneFeatures:
        """Encode images.

        Args:
            images: uint8 [B, 3, H, W], RGB.
            stream: Placeholder tokens of these images, or None.
            contents: int64 [B, 2], sizes of the images without padding, or None. Padding becomes 0 after
                normalisation, as torchvision's detectors have it, and placeholder tokens do not read it.

        Returns:
            Feature maps and the pooled feature.
        """
        normalized = (images.to(self.mean.dtype) / 255 - self.mean) / self.std
        size = (images.shape[-2], images.shape[-1])
        if contents is not None:
            normalized = normalized.masked_fill(padding_mask(contents, size, size)[:, None], 0.0)
        self._stream, self._contents, self._size = stream, contents, size
        try:
            final, maps = self.body.forward_intermediates(normalized, indices=self._indices, output_fmt="NCHW")
        finally:
            self._stream = self._contents = None
        pooled = self.body.forward_head(final, pre_logits=True)
        return BackboneFeatures(dict(zip(self._strides, maps, strict=True)), pooled)

    def _hook(self, site: str, stage: Mapping[str, Any]) -> Callable[..., Tensor | None]:
        channels, stride = int(stage["num_chs"]), int(stage["reduction"])

        def exchange(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            if self._stream is None:
                return None
            if output.dim() == 4 and output.shape[1] == channels:  # [B, C, H, W]
                batch, _, height, width = output.shape
                padding = self._padding((height, width), height * width)
                tokens = self._stream.exchange(site, output.flatten(2).transpose(1, 2), padding)
                return tokens.transpose(1, 2).reshape(batch, channels, height, width)
            if output.shape[-1] == channels and output.dim() in (3, 4):  # [B, N, C] or [B, H, W, C]
                features = output.reshape(len(output), -1, channels)
                height, width = output.shape[1:3] if output.dim() == 4 else (-(-side // stride) for side in self._size)
                padding = self._padding((height, width), features.shape[1])
                return self._stream.exchange(site, features, padding).reshape(output.shape)
            raise RuntimeError(f"{site}: cannot exchange tokens with features of shape {tuple(output.shape)}")

        return exchange

    def _padding(self, map_size: tuple[int, int], positions: int) -> Tensor | None:
        """Bool [B, positions] of the padding; class tokens and the like, which stand in front, are none."""
        if self._contents is None:
            return None
        mask = padding_mask(self._contents, self._size, map_size).flatten(1)
        return torch.nn.functional.pad(mask, (positions - mask.shape[1], 0), value=False)


def _names() -> set[str]:
    return set(timm.list_models())


def _create(config: BackboneConfig) -> Any:
    try:
        model = timm.create_model(config.name, pretrained=config.pretrained, num_classes=0)
    except RuntimeError as error:  # unknown tag, or no pretrained weights exist
        raise HarnessError(f"model.backbone: timm cannot build {config.name!r}: {_first_sentence(error)}") from None
    except Exception as error:
        if not config.pretrained:
            raise
        # Every hub client has its own family of network errors; all of them mean that the weights did not come.
        raise HarnessError(
            f"model.backbone.pretrained: the weights of {config.name!r} could not be downloaded"
            f" ({_first_sentence(error)}); download them once where there is a network, or set pretrained: false"
        ) from None
    if not hasattr(model, "forward_intermediates") or not getattr(model, "feature_info", None):
        raise HarnessError(f"model.backbone.name: {config.name!r} gives no intermediate features in this timm version")
    return model


def _constant(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)


def _first_sentence(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
