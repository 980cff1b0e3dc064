"""The ``tasks`` section of a submission. Light: no torch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator

from harness.documents import Section

Size = Annotated[int, Field(ge=16, le=4096)]


class TaskConfig(Section):
    """One task: a dataset card and how its images are fed.

    Attributes:
        dataset: Name of a dataset card (``harness ls datasets``).
        batch_size: Images per step. For VQA every image brings up to `questions` of its questions.
        image_size: Height and width that images are resized to; one number means a square.
        flip: Probability of a horizontal flip in training. Leave 0 where left and right matter.
        crop: Smallest share of the image's area that a random resized crop keeps in training; 1 means no crop.
        questions: VQA: at most so many questions per image and step, drawn at random.
        weight: Weight of the task's loss, for ``balancing: {name: manual}``.
    """

    dataset: str
    batch_size: int = Field(ge=1, le=65536)
    image_size: tuple[Size, Size]
    flip: float = Field(default=0.0, ge=0, le=1)
    crop: float = Field(default=1.0, gt=0, le=1)
    questions: int = Field(default=6, ge=1)
    weight: float = Field(default=1.0, gt=0)

    @field_validator("image_size", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value
