"""The single-task baselines of a multi-task submission: each task alone, with the same backbone and recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.atomic import write_text
from harness.models.config import HeadsConfig
from harness.submission import Submission


def single_task(submission: Submission, dataset: str, tokens: bool = False) -> Submission:
    """One task of a submission by itself, without anything that serves several tasks.

    Backbone, neck, the task's head, data, batch size, steps, optimizer and schedule stay. Placeholder tokens and what
    they are trained for, sharing, balancing, regime and shared images fall away: with one task they have nothing to do,
    and tokens are what is tested. So do corruptions, train gap and relatedness, which Δm does not need.

    Args:
        submission: Of several tasks.
        dataset: The task's data set.
        tokens: Keep the placeholder tokens all the same, for what they do to a network of one task, and what they are
            trained for, as far as it does not compare tasks.

    Returns:
        A submission that two submissions have in common if they differ in nothing but how tasks are learned together.
    """
    content = submission.plainly_scored().resolved()
    task = next(task for task in content["tasks"] if task["dataset"] == dataset) | {"weight": 1.0, "images_of": None}
    kind = submission.cards()[dataset].task
    model, training = content["model"], content["training"]
    objectives: dict[str, Any] = {}
    if tokens and submission.model.placeholders.count:
        objectives = _of_one_task(training["placeholders"])
    else:
        model |= {"placeholders": {"count": 0}}
    heads = {kind: model["heads"][kind]}
    if kind != "vqa" and HeadsConfig().vqa.stride not in model["neck"]["strides"]:
        heads["vqa"] = {
            "stride": model["neck"]["strides"][0]
        }  # there is no such head, and its default must not be wrong
    model |= {"sharing": {"name": "hard"}, "heads": heads}
    training |= {"regime": {"name": "joint"}, "balancing": {"name": "equal"}}
    training["placeholders"] = objectives
    backbone = submission.model.backbone.name.split("/")[-1]
    name = f"single-{dataset}-{backbone}"
    description = f"{dataset} alone, without placeholder tokens: a single-task baseline."
    return Submission.model_validate(
        content
        | {"name": _valid(name), "description": description, "model": model, "training": training, "tasks": [task]}
    )


def fingerprints(submission: Submission) -> dict[str, str]:
    """Fingerprints of the single-task baselines by data set; none for a submission of one task."""
    if len(submission.tasks) == 1:
        return {}
    return {task.dataset: single_task(submission, task.dataset).fingerprint() for task in submission.tasks}


def write(submission: Submission, folder: Path, called: Mapping[str, str] | None = None) -> list[Path]:
    """Write the single-task baselines of a submission as files that can be submitted.

    Args:
        submission: Of several tasks; of one, there are none.
        folder: Where to.
        called: The names of those that go by another, by fingerprint.
    """
    files = []
    for task in submission.tasks if len(submission.tasks) > 1 else ():
        one = single_task(submission, task.dataset)
        file = folder / f"{one.name}-{one.fingerprint()}.yaml"
        content = one.resolved() | {"name": (called or {}).get(one.fingerprint(), one.name)}
        write_text(file, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
        files.append(file)
    return files


def _of_one_task(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Of what tokens are trained for, that which needs no other task."""
    kept = {key: wanted[key] for key in ("adversarial", "self_supervised")}
    if (wanted["auxiliary"] or {}).get("target") == "rotation":
        kept["auxiliary"] = wanted["auxiliary"]
    if (wanted["distilled"] or {}).get("teacher") is not None:
        kept["distilled"] = wanted["distilled"] | {"from_task": None}
    return kept


def _valid(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)[:100]
