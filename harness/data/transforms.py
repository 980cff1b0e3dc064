"""From decoded samples to tensors of one size, with random augmentation that is a function of (seed, epoch, id)."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from harness.data.config import TaskConfig

IGNORE = 255


class Transform:
    """Resize to the task's image size; in training also random resized crop and horizontal flip.

    Everything is torchvision's transforms v2 on uint8, antialiased. Images are stretched to the size, so that a batch
    has no padding; boxes and masks follow.

    Args:
        config: Image size and augmentation.
        training: Whether to augment.
    """

    def __init__(self, config: TaskConfig, training: bool) -> None:
        self.size = list(config.image_size)
        resize: Any = v2.Resize(self.size, antialias=True)
        if training and config.crop < 1:
            resize = v2.RandomResizedCrop(self.size, scale=(config.crop, 1.0), antialias=True)
        steps = [resize]
        if training and config.flip:
            steps.append(v2.RandomHorizontalFlip(config.flip))
        self._random = training and (config.crop < 1 or config.flip > 0)
        self._transform = v2.Compose([*steps, v2.ClampBoundingBoxes()])

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
        sample: dict[str, Any] = {"image": tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1))}
        if boxes is not None:
            sample["boxes"] = tv_tensors.BoundingBoxes(
                torch.from_numpy(boxes), format="XYXY", canvas_size=image.shape[:2]
            )
        if mask is not None:
            sample["mask"] = tv_tensors.Mask(torch.from_numpy(mask))
        if self._random:
            # torchvision draws from the global stream. (torch.manual_seed would seed the GPUs, too, and takes longer
            # than all of this function.)
            state = torch.get_rng_state()
            try:
                torch.default_generator.manual_seed(derive_seed(*key))
                sample = self._transform(sample)
            finally:
                torch.set_rng_state(state)
        else:
            sample = self._transform(sample)
        out = {name: value.as_subclass(Tensor) for name, value in sample.items()}
        if mask is not None:
            out["mask"] = out["mask"].long()
        return out


def derive_seed(*key: object) -> int:
    """A 63-bit seed from a key; the same on every machine and in every process."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
