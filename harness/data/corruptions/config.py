"""The ``evaluation.corruptions`` section of a submission. Light: no torch, no scipy."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, field_validator

from harness.documents import Section

Kind = Literal[
    "gaussian_noise", "shot_noise", "impulse_noise", "gaussian_blur", "motion_blur", "fog", "snow", "brightness",
    "contrast", "pixelate", "jpeg",
]  # fmt: skip

KINDS: tuple[Kind, ...] = get_args(Kind)
SEVERITIES = (1, 2, 3, 4, 5)
VERSION = 1  # raised when an image could come out otherwise, which changes the fingerprint, too


class CorruptionsConfig(Section):
    """How much of each task is lost on corrupted images (after ImageNet-C; Hendrycks & Dietterich 2019).

    Every image of the evaluation split is predicted and scored again under every kind and severity. Boxes, label maps
    and answers stay as they are: no kind moves anything. ``{}`` means all kinds and severities.

    Attributes:
        kinds: Which corruptions; their order does not matter.
        severities: How strong, from 1 to 5.
    """

    kinds: tuple[Kind, ...] = Field(default=KINDS, min_length=1)
    severities: tuple[int, ...] = Field(default=SEVERITIES, min_length=1)

    @field_validator("kinds")
    @classmethod
    def _different(cls, kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"{list(kinds)} names a kind twice; name each once")
        return tuple(kind for kind in KINDS if kind in kinds)  # one order, so that equal sets are equal protocols

    @field_validator("severities")
    @classmethod
    def _known(cls, severities: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(severities)) < len(severities) or not set(severities) <= set(SEVERITIES):
            raise ValueError(f"{list(severities)} must be different numbers from 1 to 5, e.g. [1, 3, 5]")
        return tuple(sorted(severities))
