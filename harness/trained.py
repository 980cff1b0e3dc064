"""What training leaves in a run's folder beside the weights: the file that says that it is done."""

from __future__ import annotations

from pathlib import Path

import orjson
from pydantic import ConfigDict, ValidationError

from harness.board.fields import Count, Document, Number
from harness.board.schema import Stage
from harness.documents import describe

TRAINED = "training.json"


class Trained(Document):
    """What there is to say of finished training; summed over the parts of a run that was interrupted.

    Attributes:
        steps: Optimizer steps that were taken.
        stages: Under a regime that has several.
        selected_step: The step after which the weights stood, where they were chosen on the selection splits.
        warnings: What a reader must know.
        seconds: Wall time.
        phases: The same by phase.
        memory: Peak resident memory in bytes.
        gpu_memory: Peak GPU memory in bytes; None without a GPU.
        joules: What the GPUs used; None where it cannot be measured.
        images: Training images seen.
        skipped: A sentence about each training image that could not be read.
        curves: Learning curves: (step, value) by name.
        macs: Multiply-accumulates per image, by task.
        started: When.
    """

    model_config = ConfigDict(extra="ignore")  # a later version may say more

    steps: Count
    stages: list[Stage]
    selected_step: Count | None
    warnings: list[str]
    seconds: float
    phases: dict[str, Number]
    memory: Count
    gpu_memory: Count | None
    joules: Number
    images: Count
    skipped: list[str]
    curves: dict[str, list[tuple[Count, Number]]]
    macs: dict[str, Count]
    started: str


def read_trained(folder: Path) -> Trained:
    """Read ``training.json`` of a run's folder.

    Raises:
        OSError: It cannot be read.
        ValueError: It holds something else; the message names the field.
    """
    try:
        return Trained.model_validate(orjson.loads((folder / TRAINED).read_bytes()))
    except ValidationError as error:
        raise ValueError(describe(error, Trained, TRAINED)) from None
