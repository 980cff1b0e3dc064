"""The ``tasks`` section of a submission. Light: no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from harness.cards import Task
from harness.documents import Section
from harness.errors import HarnessError

Size = Annotated[int, Field(ge=16, le=4096)]
Factor = Annotated[float, Field(gt=0, le=16)]
Resize = Literal["stretch", "crop", "fit", "native"]
Interpolation = Literal["auto", "bilinear", "bicubic"]

# A crop must not cut off what is to be found or answered per pixel; padding must not be pooled or asked about.
_RESIZES: dict[Task, tuple[Resize, ...]] = {
    "classification": ("stretch", "crop"),
    "detection": ("stretch", "fit"),
    "segmentation": ("stretch", "fit", "native"),
    "vqa": ("stretch", "crop"),
}


# What a task that takes another's images has in common with it.
FEEDING = (
    *("batch_size", "image_size", "resize", "interpolation", "crop_fraction", "crop", "scale", "flip", "augment"),
    *("sliding_window", "cache", "fraction", "fraction_draw"),
)


class TaskConfig(Section):
    """One task: a dataset card and how its images are fed.

    Attributes:
        dataset: Name of a dataset card (``harness ls datasets``).
        batch_size: Images per step. For VQA every image brings up to `questions` of its questions.
        image_size: Height and width; one number means a square.
        resize: How images get there. ``stretch``: to exactly this size. ``crop``: the shorter edge to size /
            `crop_fraction`, then the centre (classification, VQA). ``fit``: aspect kept, the shorter edge at most the
            smaller and the longer edge at most the larger number, batches padded (detection, segmentation).
            ``native``: not resized; trained on crops of this size, scored at full resolution (segmentation).
        interpolation: How pixels are made when an image is resized; always antialiased. ``auto``: as for the weights
            that the backbone starts from (many transformers: bicubic), bilinear for random weights.
        crop_fraction: ``crop``: share of the resized image's shorter edge that is kept.
        crop: Training, ``stretch`` and ``crop``: smallest share of the area that a random resized crop keeps; 1 means
            no random crop.
        scale: Training, ``fit`` and ``native``: smallest and largest factor of a random change of scale.
        flip: Probability of a horizontal flip in training. Leave 0 where left and right matter.
        augment: Further augmentation in training. ``color``: brightness, contrast, saturation, hue. ``randaugment``
            (Cubuk 2020) and ``trivialaugment`` (Mueller 2021): classification and VQA only, for they move things.
        sliding_window: ``native``: score overlapping windows of `image_size` and average, not the whole image at once.
        cache: Decode every image once and keep it, stretched to this size, in a memory-mapped file; everything above
            starts from there. Equal to `image_size` without `crop` it changes no pixel; otherwise it does.
        fraction: Share of the training images, taken evenly from every class; a smaller share lies within a larger.
        fraction_draw: Which of the possible subsets.
        questions: VQA: at most so many questions per image and step, drawn at random.
        weight: Weight of the task's loss, for ``balancing: {name: manual}``.
        images_of: Another task, whose images this one takes in training: the same photographs in the same order,
            transformed alike, so that the network sees each of them once for both. How images are fed is then that
            task's, and need not be said again.
        shuffle_labels: A negative control: in training every image has the annotations of another one. What is scored
            is untouched.
    """

    dataset: str
    batch_size: int = Field(ge=1, le=65536)
    image_size: tuple[Size, Size]
    resize: Resize = "stretch"
    interpolation: Interpolation = "auto"
    crop_fraction: float = Field(default=0.875, gt=0, le=1)
    crop: float = Field(default=1.0, gt=0, le=1)
    scale: tuple[Factor, Factor] = (1.0, 1.0)
    flip: float = Field(default=0.0, ge=0, le=1)
    augment: Literal["none", "color", "randaugment", "trivialaugment"] = "none"
    sliding_window: bool = False
    cache: tuple[Size, Size] | None = None
    fraction: float = Field(default=1.0, gt=0, le=1)
    fraction_draw: int = Field(default=0, ge=0)
    questions: int = Field(default=6, ge=1)
    weight: float = Field(default=1.0, gt=0)
    images_of: str | None = None
    shuffle_labels: bool = False

    @field_validator("image_size", "cache", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _fits_together(self) -> TaskConfig:
        low, high = self.scale
        if low > high:
            raise ValueError(f"scale: {list(self.scale)} must be [smallest, largest]")
        if self.resize in ("fit", "native"):
            if self.crop < 1:
                raise ValueError(f"crop: resize {self.resize} changes scale by 'scale', not by 'crop'")
        elif self.scale != (1.0, 1.0):
            raise ValueError(f"scale: resize {self.resize} changes scale by 'crop'; 'scale' is for fit and native")
        if self.resize == "fit" and high > 1 and self.image_size[0] != self.image_size[1]:
            raise ValueError("scale: above 1 the image is cropped to image_size, which must then be a square")
        if self.sliding_window and self.resize != "native":
            raise ValueError("sliding_window: needs resize native")
        if self.cache is not None and self.resize != "stretch":
            raise ValueError(f"cache: needs resize stretch, for with {self.resize} every image has a size of its own")
        if self.shuffle_labels and self.cache is not None:
            raise ValueError("shuffle_labels: the cache keeps images with their own labels; leave cache out")
        return self

    def check(self, task: Task) -> None:
        """Check that this is a way to feed `task`.

        Raises:
            HarnessError: It is not.
        """
        if self.resize not in _RESIZES[task]:
            raise HarnessError(
                f"tasks: {self.dataset}: resize: {self.resize!r} is not for {task}; use {' or '.join(_RESIZES[task])}"
            )
        if self.augment in ("randaugment", "trivialaugment") and task in ("detection", "segmentation"):
            raise HarnessError(
                f"tasks: {self.dataset}: augment: {self.augment!r} moves the image but not the {task} labels; "
                "use color or none"
            )

    def preprocessing(self) -> dict[str, Any]:
        """What is done to an image before the network in evaluation, for the record."""
        found: dict[str, Any] = {"image_size": list(self.image_size), "resize": self.resize}
        if self.resize == "crop":
            found["crop_fraction"] = self.crop_fraction
        if self.resize == "native":
            found["sliding_window"] = self.sliding_window
        if self.cache is not None:
            found["cache"] = list(self.cache)
        return found | {"interpolation": f"{self.interpolation}, antialiased"}
