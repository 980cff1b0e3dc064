"""Corrupting one image of a data set, always in the same way."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from harness.data.config import Interpolation, TaskConfig
from harness.data.corruptions import blur, digital, distortion, noise, weather
from harness.data.corruptions.config import Kind
from harness.data.corruptions.frost import frost
from harness.data.corruptions.pixels import Corrupt, Pixels
from harness.data.samples import Adapter, DetectionSample, Sample, SegmentationSample
from harness.data.transforms import Transform, derive_seed

CORRUPTIONS: dict[Kind, Corrupt] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "gaussian_blur": blur.gaussian_blur,
    "motion_blur": blur.motion_blur,
    "fog": weather.fog,
    "snow": weather.snow,
    "brightness": digital.brightness,
    "contrast": digital.contrast,
    "pixelate": digital.pixelate,
    "jpeg": digital.jpeg,
    "glass_blur": distortion.glass_blur,
    "zoom_blur": distortion.zoom_blur,
    "frost": frost,
    "elastic_transform": distortion.elastic_transform,
}


@dataclass(frozen=True)
class Corruption:
    """One kind at one severity.

    What is drawn is a function of data set, image, kind and severity alone. So every entry and every seed of one sees
    the same corrupted pixels, whatever the batch size, the order and the process.

    Attributes:
        kind: Its name.
        severity: 1 to 5.
    """

    kind: Kind
    severity: int

    def __call__(self, image: Pixels, card: str, name: str) -> Pixels:
        """Corrupt an image as it was decoded, before it is resized for a network.

        Args:
            image: uint8 [H, W, 3], RGB; stays as it is.
            card: The data set's name.
            name: The image's id.

        Returns:
            uint8 [H, W, 3].
        """
        draw = np.random.default_rng(derive_seed("corruption", card, name, self.kind, self.severity))
        return CORRUPTIONS[self.kind](image, self.severity, draw)

    def sample(self, adapter: Adapter, row: int, cache: tuple[int, int] | None, interpolation: Interpolation) -> Sample:
        """A sample with its image corrupted; all else stays as it is.

        Args:
            adapter: The data set's split.
            row: Which image.
            cache: Height and width to which the image cache stretches the images that are compared with; None where
                there is no such cache. It holds clean images, so that corrupted ones go the same way beside it.
            interpolation: How it stretches.
        """
        sample: Sample = adapter[row]
        corrupted = replace(sample, image=self(sample.image, adapter.card.name, sample.id))
        return corrupted if cache is None else _stretched(corrupted, cache, interpolation)


def _stretched(sample: Sample, size: tuple[int, int], interpolation: Interpolation) -> Sample:
    config = TaskConfig(dataset="cache", batch_size=1, image_size=size, interpolation=interpolation)
    transform = Transform(config, training=False)
    if isinstance(sample, DetectionSample):
        out = transform(sample.image, (), boxes=sample.boxes)
        return replace(sample, image=_rows(out["image"]), boxes=out["boxes"].numpy())
    if isinstance(sample, SegmentationSample):
        out = transform(sample.image, (), mask=sample.mask)
        return replace(sample, image=_rows(out["image"]), mask=out["mask"].numpy().astype(np.uint8))
    return replace(sample, image=_rows(transform(sample.image, ())["image"]))


def _rows(image: object) -> Pixels:
    """A tensor uint8 [3, h, w] as [h, w, 3], dense."""
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())  # type: ignore[attr-defined]
