"""One task's part of a record: its numbers, and everything that they depend on."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from harness.board.fields import CardName, Count, Document, Free, KindName, Number, Sha256


class Protocol(Document):
    """Everything besides the predictions that a task's numbers depend on; equal protocols are comparable.

    Attributes:
        card: Dataset card's name.
        card_version: Its version.
        split: The split that was scored.
        images: SHA-256 of the list of image ids.
        annotations: SHA-256 of the ground truth.
        metric: Metric's name.
        metric_version: Its version.
    """

    card: CardName
    card_version: str
    split: str
    images: Sha256
    annotations: Sha256
    metric: str
    metric_version: Count


class Robustness(Document):
    """One task on corrupted images.

    Per-image statistics of these are not stored with a record. What is stored of them are the drops on the draws of
    images by which boards and comparisons resample, so that drops of two records can be compared image for image.

    Attributes:
        version: Of the corruptions.
        kinds: Which.
        severities: How strong.
        values: Headline number by kind, in the order of the severities.
        drop: The clean number minus the mean of `values`.
        low: Lower end of its 95% interval over images.
        high: Upper end.
        relative: The drop as a share of the clean number.
        draws: The drop on each of the draws of images (1,000, seed 0).
    """

    version: Count
    kinds: list[KindName] = Field(min_length=1)
    severities: list[Count] = Field(min_length=1)
    values: dict[str, list[Number]]
    drop: Number
    low: Number
    high: Number
    relative: Number
    draws: list[Number] = Field(max_length=100_000)

    @model_validator(mode="after")
    def _whole(self) -> Robustness:
        if set(self.values) != set(self.kinds) or len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"values: {sorted(self.values)} must be the kinds {sorted(self.kinds)}")
        for kind, values in self.values.items():
            if len(values) != len(self.severities):
                raise ValueError(f"values.{kind}: {len(values)} numbers for {len(self.severities)} severities")
        return self

    @property
    def protocol(self) -> tuple[int, tuple[str, ...], tuple[int, ...]]:
        """What drops have in common that can be compared."""
        return self.version, tuple(self.kinds), tuple(self.severities)

    def mean(self) -> float | None:
        """The mean of `values`; None where one is undefined."""
        values = [value for row in self.values.values() for value in row]
        return None if None in values else math.fsum(filter(None, values)) / len(values)


class TrainGap(Document):
    """One task on images that it was trained on.

    Attributes:
        images: How many of them.
        value: Headline number on them, without augmentation.
        gap: `value` minus the number on the evaluation split.
        low: Lower end of its 95% interval over images of both.
        high: Upper end.
        chosen: SHA-256 of the list of these images' ids; None in records of before it was kept.
        draws: The gap on each of the draws of images (1,000), so that gaps on the same images can be compared.
    """

    images: Count
    value: Number
    gap: Number
    low: Number
    high: Number
    chosen: Sha256 | None = None
    draws: list[Number] = Field(default=[], max_length=100_000)


class TaskResult(Document):
    """One task's numbers.

    Attributes:
        task: classification, detection, segmentation or vqa.
        protocol: What they depend on.
        main: Key of the headline number in `metrics`.
        metrics: Number by name, fractions in [0, 1]; None where undefined.
        per_class: Headline number by class; None where undefined.
        images: How many images were scored.
        statistics: SHA-256 of this task's arrays in ``statistics.npz`` (see `hash_arrays`).
        predictions: SHA-256 of the predictions file that was scored.
        preprocessing: What was done to each image before the network, e.g. image size; empty when unknown.
        robustness: The same on corrupted images, where the submission asks for it.
        train_gap: The same on training images, where the submission asks for it.
    """

    task: Literal["classification", "detection", "segmentation", "vqa"]
    protocol: Protocol
    main: str
    metrics: dict[str, Number]
    per_class: dict[str, Number] = {}
    images: Count
    statistics: Sha256
    predictions: Sha256 | None = None
    preprocessing: Free = {}
    robustness: Robustness | None = None
    train_gap: TrainGap | None = None

    @model_validator(mode="after")
    def _has_headline(self) -> TaskResult:
        if self.main not in self.metrics:
            raise ValueError(f"main: {self.main!r} is not among the metrics ({', '.join(self.metrics) or 'none'})")
        if self.robustness is not None:
            _require_difference("robustness.drop", self.robustness.drop, self.value, self.robustness.mean())
        if self.train_gap is not None:
            _require_difference("train_gap.gap", self.train_gap.gap, self.train_gap.value, self.value)
        return self

    @property
    def value(self) -> float | None:
        """The headline number."""
        return self.metrics[self.main]


def _require_difference(field: str, said: float | None, first: float | None, second: float | None) -> None:
    """See to it that a number is the difference of two others, and undefined where one of these is."""
    given = None if first is None or second is None else first - second
    if (said is None) != (given is None) or (said is not None and given is not None and abs(said - given) > 1e-9):
        raise ValueError(f"{field}: is {said}, the numbers beside it give {given}")
