"""The ``evaluation.corruptions`` section of a submission. Light: no torch, no scipy."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator

from harness.documents import Section

Kind = Literal[
    "gaussian_noise", "shot_noise", "impulse_noise", "gaussian_blur", "motion_blur", "fog", "snow", "brightness",
    "contrast", "pixelate", "jpeg", "glass_blur", "zoom_blur", "frost", "elastic_transform",
]  # fmt: skip

KINDS: tuple[Kind, ...] = get_args(Kind)
USUAL: tuple[Kind, ...] = KINDS[:11]  # what is scored if no kind is named; to add to these would change fingerprints
CARRYING: tuple[Kind, ...] = ("elastic_transform",)  # what it carries away, boxes and label maps no longer cover
SEVERITIES = (1, 2, 3, 4, 5)
VERSION = 1  # raised when an image could come out otherwise, which changes the fingerprint, too


def _named(value: Any) -> Any:
    return KINDS if value == "all" else value


class CorruptionsConfig(Section):
    """How much of each task is lost on corrupted images (after ImageNet-C; Hendrycks & Dietterich 2019).

    Every image of the evaluation split is predicted and scored again under every kind and severity. Boxes, label maps
    and answers stay as they are, as in the paper; so ``elastic_transform``, which carries things by up to a fifth of
    the image, is scored on classification and VQA and on nothing that has places to be found.

    Attributes:
        kinds: Which corruptions, or ``all`` 15; their order does not matter. By default the first eleven: all but
            ``glass_blur``, ``zoom_blur``, ``frost`` (with drawn crystals) and ``elastic_transform``.
        severities: How strong, from 1 to 5.
    """

    kinds: Annotated[
        tuple[Kind, ...],
        BeforeValidator(
            _named, json_schema_input_type=Annotated[tuple[Kind, ...], Field(min_length=1)] | Literal["all"]
        ),
    ] = Field(default=USUAL, min_length=1)
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

    def on(self, task: str) -> CorruptionsConfig | None:
        """What of it can be asked of a kind of task; None where that is nothing.

        Args:
            task: classification, detection, segmentation or vqa.
        """
        if task not in ("detection", "segmentation"):
            return self
        kinds = tuple(kind for kind in self.kinds if kind not in CARRYING)
        return self.model_copy(update={"kinds": kinds}) if kinds else None
