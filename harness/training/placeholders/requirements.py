"""Which objectives of placeholder tokens a submission can have. Light: no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import suggestion
from harness.models.config import PlaceholderConfig

if TYPE_CHECKING:
    from harness.submission import Submission

KEYS = ("alignment", "auxiliary", "adversarial", "discriminator", "distilled", "self_supervised")
_ONE_TASK_A_STEP = ("mt_dnn", "continual")


def check_objectives(submission: Submission) -> None:
    """Refuse objectives that cannot work.

    Raises:
        ValueError: Names the key, what is in its way, and the mend.
    """
    wanted = submission.training.placeholders
    nothing = "count is 0" if not submission.model.placeholders.count else ""
    if submission.model.placeholders.adapter:
        nothing = "adapter is true"
    for key in KEYS:
        if getattr(wanted, key) is not None and nothing:
            raise ValueError(
                f"training.placeholders.{key}: model.placeholders.{nothing}, so there are no tokens to train; give it"
                f" some, or leave {key} out"
            )
    reading = {key for key in KEYS if key != "adversarial" and getattr(wanted, key) is not None}
    if wanted.distilled is not None and not wanted.distilled.weight:
        reading.discard("distilled")  # only the start
    reason = _unread(submission.model.placeholders)
    for key in KEYS:
        if key in reading and reason:
            raise ValueError(
                f"training.placeholders.{key}: tokens must have read the image, or there is nothing in them to learn"
                f" from, but {reason}; use mechanism: exchange with placement: hidden and stages of 1 or more"
            )
    _check_tokens(submission)
    _check_tasks(submission)
    _check_batches(submission)


def _check_tokens(submission: Submission) -> None:
    """Objectives that do not go with a kind of tokens."""
    wanted, config = submission.training.placeholders, submission.model.placeholders
    random = config.kind == "random"
    if wanted.adversarial is not None and (config.frozen or random):
        raise ValueError(
            "training.placeholders.adversarial: moves tokens against their gradient, and with"
            f" model.placeholders.{'kind: random' if random else 'frozen'} they have none; leave one of them out"
        )
    if wanted.distilled is not None and wanted.distilled.teacher is not None and random:
        raise ValueError(
            "training.placeholders.distilled.teacher: gives the tokens a start, which model.placeholders.kind: random"
            " draws; leave one of them out"
        )
    if wanted.self_supervised is not None and config.dynamic:
        raise ValueError(
            "training.placeholders.self_supervised: lets fresh tokens read at the last site, and with"
            " model.placeholders.dynamic they are made from features of the first; leave one of them out"
        )


def _unread(config: PlaceholderConfig) -> str:
    """Why tokens do not depend on the image; empty if they do."""
    if config.way == "output":
        return "placement: output has no site"
    if config.way == "insert":
        return f"mechanism: {config.mechanism} with placement: {config.placement} only inserts them"
    if not config.stages:
        return "stages: 0 leaves the backbone without a site"
    if not config.read:
        return "read: false keeps them from it"
    return ""


def _check_tasks(submission: Submission) -> None:
    wanted, names = submission.training.placeholders, [task.dataset for task in submission.tasks]
    regime = submission.training.regime.name
    pairing = {
        "alignment": wanted.alignment is not None,
        "discriminator": wanted.discriminator is not None,
        "distilled.from_task": wanted.distilled is not None and wanted.distilled.from_task is not None,
    }
    for key, on in pairing.items():
        if on and len(names) < 2:
            raise ValueError(f"training.placeholders.{key}: compares tasks, and {names[0]} is the only one")
        if on and key != "discriminator" and regime in _ONE_TASK_A_STEP:
            raise ValueError(
                f"training.placeholders.{key}: compares tasks within a step, and the regime {regime} trains one task in"
                " each; use joint, sequential or curriculum"
            )
    if wanted.auxiliary is not None and wanted.auxiliary.target == "dataset":
        sources = [task.dataset for task in submission.tasks if task.images_of is None]
        if len(sources) < 2:
            raise ValueError(
                f"training.placeholders.auxiliary.target: all images come from {sources[0]}, so that there is nothing"
                " to tell apart; use target: rotation"
            )
    if wanted.auxiliary is not None and wanted.auxiliary.target == "rotation":
        for task in submission.tasks:
            if task.resize in ("fit", "native"):
                raise ValueError(
                    f"training.placeholders.auxiliary.target: rotation needs images without padding, which resize:"
                    f" {task.resize} of {task.dataset} gives; use stretch or crop, or target: dataset"
                )
    main = wanted.distilled.from_task if wanted.distilled is not None else None
    if main is not None and main not in names:
        raise ValueError(
            f"training.placeholders.distilled.from_task: {main!r} is none of the tasks{suggestion(main, names, '')}"
        )


def _check_batches(submission: Submission) -> None:
    """A mean has no spread where there is one image."""
    wanted, parts = submission.training.placeholders, submission.training.accumulation
    key = "alignment" if wanted.alignment is not None and wanted.alignment.variance_weight else ""
    if wanted.distilled is not None and wanted.distilled.from_task is not None:
        key = key or "distilled.from_task"
    for task in submission.tasks if key else ():
        if task.batch_size // parts < 2:
            raise ValueError(
                f"training.placeholders.{key}: needs two images of each task at a time, but tasks: {task.dataset} has"
                f" batch_size {task.batch_size} in training.accumulation {parts} parts; raise batch_size"
            )
