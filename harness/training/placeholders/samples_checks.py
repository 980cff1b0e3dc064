"""What placeholder samples cannot do, told before anything is read. Light: no torch."""

from __future__ import annotations

from collections.abc import Sequence

from harness.cards import DatasetCard
from harness.data.config import TaskConfig
from harness.errors import HarnessError
from harness.models.config import ModelConfig
from harness.training.config import TrainingConfig

_PLACE = "training.placeholders.samples"


def check_samples(model: ModelConfig, training: TrainingConfig, tasks: Sequence[TaskConfig]) -> None:
    """Check what needs no dataset card.

    Raises:
        ValueError: The submission has placeholder samples that it cannot have.
    """
    samples = training.placeholders.samples
    if not samples.ratio:
        return
    pools = [task for task in tasks if task.fraction < 1]
    if not pools:
        raise ValueError(
            f"{_PLACE}.ratio: {samples.ratio:g}, but every task trains on all its labels, so that no image is left"
            " without one; set fraction of a task below 1, or ratio to 0"
        )
    for task in pools:
        if not samples.batch_size(task.batch_size):
            raise ValueError(
                f"{_PLACE}.ratio: {samples.ratio:g} of the batch_size {task.batch_size} of {task.dataset} is less than"
                " half an image; raise one of them"
            )
    if samples.kind == "adversarial" and model.backbone.frozen == "all":
        raise ValueError(
            f"{_PLACE}.kind: adversarial follows the gradient to the pixels, but features of a wholly frozen backbone"
            " are taken from memory, without one; freeze some stages only, or take kind random or distilled"
        )


def check_samples_of_task(model: ModelConfig, training: TrainingConfig, task: TaskConfig, card: DatasetCard) -> None:
    """Check what needs the task's dataset card.

    Raises:
        HarnessError: The task cannot have placeholder samples.
    """
    if not training.placeholders.samples.ratio or task.fraction == 1:
        return
    heads = model.heads
    if card.task == "vqa" and heads.vqa.question_only:
        raise HarnessError(
            f"{_PLACE}: views of an image differ in the image, which {task.dataset} does not see with"
            " model.heads.vqa.question_only; set its fraction to 1"
        )
    if card.task == "detection" and heads.detection.name == "faster_rcnn" and model.placeholders.way == "output":
        raise HarnessError(
            f"{_PLACE}: {task.dataset}: faster_rcnn tells objects, and not classes, at the places that views are"
            " compared at, so that tokens with placement: output would never be met; take fcos, or another placement"
        )
    if training.selection is not None and card.selection_split == "train":
        raise HarnessError(
            f"{_PLACE}: {task.dataset}: training.selection looks at the training images that its fraction leaves over,"
            " and these would be trained on; leave one of the two out"
        )
    if card.evaluation_split == "train":
        raise HarnessError(f"{_PLACE}: {task.dataset} is scored on its training split, which must not be trained on")
