"""From decoded samples to tensors, with random augmentation that is a function of (seed, epoch, id)."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from harness.data.config import TaskConfig

IGNORE = 255
Step = Callable[[Any], Any]
_CLAMP = v2.ClampBoundingBoxes()


class Transform:
    """The training or evaluation recipe of a task; see `TaskConfig` for what the options mean.

    Everything is torchvision's transforms v2 on uint8, antialiased; boxes and masks follow the image.

    Args:
        config: Image size and augmentation. Interpolation ``auto``, which a submission resolves, is bilinear here.
        training: Whether to augment.
        alone: Whether no other task must draw the same for the same image.
    """

    def __init__(self, config: TaskConfig, training: bool, alone: bool = True) -> None:
        steps = _resize(config, training)
        if training and config.flip:
            steps.append(v2.RandomHorizontalFlip(config.flip))
        if training and config.augment != "none":
            steps.append(_AUGMENTATIONS[config.augment]())
        drawn = config.flip > 0 or config.augment != "none" or config.crop < 1 or config.scale != (1.0, 1.0)
        # A crop of a native image draws its place even at a fixed scale.
        self.random = training and (drawn or config.resize == "native")
        self._steps = steps
        # Classification with random crops is where loading is the bottleneck.
        light = alone and training and config.crop < 1 and config.augment == "none"
        self._light = _CropAndFlip(config) if light else None

    def __call__(self, image: Any, key: tuple[object, ...], boxes: Any = None, mask: Any = None) -> dict[str, Tensor]:
        """Transform one sample.

        Args:
            image: uint8 [H, W, 3] array.
            key: What the randomness is a function of, e.g. (seed, epoch, id).
            boxes: float32 [N, 4] array, xyxy pixels, or None.
            mask: uint8 [H, W] array, or None.

        Returns:
            ``image`` uint8 [3, h, w]; ``boxes`` float32 [N, 4] and ``mask`` int64 [h, w] as far as given.
        """
        if self._light is not None and boxes is None and mask is None:
            return {"image": self._light(image, key)}
        pixels = torch.from_numpy(image).permute(2, 0, 1)
        # A tensor alone is an image to torchvision; wrapping it costs as much as resizing it.
        alone = boxes is None and mask is None
        sample: dict[str, Any] = {"image": pixels if alone else tv_tensors.Image(pixels)}
        if boxes is not None:
            sample["boxes"] = tv_tensors.BoundingBoxes(
                torch.from_numpy(boxes), format="XYXY", canvas_size=image.shape[:2]
            )
        if mask is not None:
            sample["mask"] = tv_tensors.Mask(torch.from_numpy(mask))
        if self.random:
            # torchvision draws from the global stream. (torch.manual_seed would seed the GPUs, too, and takes longer
            # than all of this function.)
            state = torch.get_rng_state()
            try:
                torch.default_generator.manual_seed(derive_seed(*key))
                sample = self._apply(sample)
            finally:
                torch.set_rng_state(state)
        else:
            sample = self._apply(sample)
        out = {name: value.as_subclass(Tensor) for name, value in sample.items()}
        if mask is not None:
            out["mask"] = out["mask"].long()
        return out

    def _apply(self, sample: dict[str, Any]) -> dict[str, Any]:
        for step in self._steps:
            sample = step(sample)
        return _CLAMP(sample) if "boxes" in sample else sample


_AUGMENTATIONS: dict[str, Callable[[], Step]] = {
    "color": v2.RandomPhotometricDistort,
    "randaugment": v2.RandAugment,
    "trivialaugment": v2.TrivialAugmentWide,
}


def _resize(config: TaskConfig, training: bool) -> list[Step]:
    size = list(config.image_size)
    if config.resize == "fit":
        return [_Fit(config, training)]
    if config.resize == "native":
        return [_Rescale(config), _crop_to(config.image_size)] if training else []
    if training and config.crop < 1:
        return [_RandomResizedCrop(size, scale=(config.crop, 1.0), interpolation=_mode(config), antialias=True)]
    if config.resize == "crop":
        return [_CoverThenCentre(config)]
    return [v2.Resize(size, interpolation=_mode(config), antialias=True)]


def _mode(config: TaskConfig) -> v2.InterpolationMode:
    """Of images; masks are always resized to the nearest pixel's id."""
    return v2.InterpolationMode("bilinear" if config.interpolation == "auto" else config.interpolation)


class _RandomResizedCrop(v2.RandomResizedCrop):
    """torchvision's, with the crop copied before it is resized: its kernel is a third faster on dense pixels."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Crop and resize one input."""
        box = [params[key] for key in ("top", "left", "height", "width")]
        part = v2.functional.crop(inpt, *box)
        if not isinstance(inpt, (tv_tensors.BoundingBoxes, tv_tensors.Mask)):
            dense = part.permute(1, 2, 0).contiguous().permute(2, 0, 1)
            part = tv_tensors.wrap(dense, like=part) if isinstance(part, tv_tensors.Image) else dense
        return v2.functional.resize(part, self.size, interpolation=self.interpolation, antialias=self.antialias)


class _CropAndFlip:
    """Random resized crop (Szegedy 2015, with torchvision's limits of the aspect) and flip of an image alone.

    The same as `_RandomResizedCrop` and torchvision's flip but for the source of random numbers: Python's own, because
    torch takes longer to draw eight numbers than to resize the image.
    """

    TRIES = 10
    ASPECT = (math.log(3 / 4), math.log(4 / 3))

    def __init__(self, config: TaskConfig) -> None:
        self._size, self._smallest, self._flip = list(config.image_size), config.crop, config.flip
        self._mode = _mode(config)

    def __call__(self, image: Any, key: tuple[object, ...]) -> Tensor:
        """Crop, resize and flip uint8 [H, W, 3]; returns uint8 [3, h, w]."""
        draw = random.Random(derive_seed(*key))  # noqa: S311 - augmentation, not cryptography
        top, left, height, width = self.box(image.shape[0], image.shape[1], draw)
        part = torch.from_numpy(np.ascontiguousarray(image[top : top + height, left : left + width]))
        resized = v2.functional.resize_image(part.permute(2, 0, 1), self._size, self._mode, antialias=True)
        return resized.flip(-1) if draw.random() < self._flip else resized

    def box(self, height: int, width: int, draw: random.Random) -> tuple[int, int, int, int]:
        """Top, left, height and width of a crop; the largest central one of a valid aspect where none was found."""
        for _ in range(self.TRIES):
            area = height * width * draw.uniform(self._smallest, 1.0)
            aspect = math.exp(draw.uniform(*self.ASPECT))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                return draw.randint(0, height - h), draw.randint(0, width - w), h, w
        low, high = (math.exp(limit) for limit in self.ASPECT)
        w, h = min(width, max(1, round(height * high))), min(height, max(1, round(width / low)))
        return (height - h) // 2, (width - w) // 2, h, w


class _CoverThenCentre:
    """Resize until the image covers size / crop_fraction, then take the centre (timm's and torchvision's recipe)."""

    def __init__(self, config: TaskConfig) -> None:
        self._covered = [math.floor(edge / config.crop_fraction) for edge in config.image_size]
        self._centre = v2.CenterCrop(list(config.image_size))
        self._mode = _mode(config)

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        sides = sample["image"].shape[-2:]
        tight = 0 if self._covered[0] * sides[1] >= self._covered[1] * sides[0] else 1
        size = list(self._covered)
        # The other edge is rounded down, as torchvision does.
        size[1 - tight] = int(self._covered[tight] * sides[1 - tight] / sides[tight])
        return self._centre(_resized(sample, size, self._mode))


class _Fit:
    """Keep the aspect: shorter and longer edge stay within image_size (Ren 2015 §3.3), times a random factor."""

    def __init__(self, config: TaskConfig, training: bool) -> None:
        self._short, self._long = sorted(config.image_size)
        self._scale = config.scale if training else (1.0, 1.0)
        self._crop = _crop_to(config.image_size) if self._scale[1] > 1 else None
        self._mode = _mode(config)

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        short, long = sorted(sample["image"].shape[-2:])
        sample = _scaled(sample, min(self._short / short, self._long / long) * _draw(self._scale), self._mode)
        return self._crop(sample) if self._crop is not None else sample


class _Rescale:
    """Change the scale of a native image by a random factor."""

    def __init__(self, config: TaskConfig) -> None:
        self._scale, self._mode = config.scale, _mode(config)

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        return _scaled(sample, _draw(self._scale), self._mode) if self._scale != (1.0, 1.0) else sample


def _crop_to(size: tuple[int, int]) -> Step:
    """A random crop of at most `size`; a smaller image stays as it is and is padded in its batch."""

    def crop(sample: dict[str, Any]) -> dict[str, Any]:
        sides = sample["image"].shape[-2:]
        return v2.RandomCrop([min(edge, side) for edge, side in zip(size, sides, strict=True)])(sample)

    return crop


def _draw(scale: tuple[float, float]) -> float:
    low, high = scale
    return low if low == high else float(torch.empty(()).uniform_(low, high))


def _scaled(sample: dict[str, Any], factor: float, mode: v2.InterpolationMode) -> dict[str, Any]:
    return _resized(sample, [max(1, round(side * factor)) for side in sample["image"].shape[-2:]], mode)


def _resized(sample: dict[str, Any], size: list[int], mode: v2.InterpolationMode) -> dict[str, Any]:
    return {name: v2.functional.resize(value, size, mode, antialias=True) for name, value in sample.items()}


def derive_seed(*key: object) -> int:
    """A 63-bit seed from a key; the same on every machine and in every process."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
