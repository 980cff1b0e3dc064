"""Every check that `harness submit` would make before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from harness import robustness
from harness.errors import HarnessError
from harness.models.network import FOR_TRAINING, MultiTaskNetwork
from harness.models.placeholders import Adapter
from harness.models.trunk import Trunk
from harness.run_data import build_network, open_data, task_data
from harness.shared_weights import require_shared_weights
from harness.step_costs import step_macs
from harness.submission import Submission, load_submission, read_control
from harness.training.balancing.base import Setting, build_balancer
from harness.training.costs import macs_per_image
from harness.training.devices import check_batches
from harness.training.placeholders.pools import unlabelled
from harness.training.placeholders.substitution.held_out import held_out
from harness.training.planning import plan
from harness.training.recomputing import recomputing


def check(file: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Check a submission: schema, data, network, and one sample of every task through its head.

    Args:
        file: The submission.
        overrides: As `load_submission` takes them.

    Returns:
        A report of plain JSON values: the submission with every default, parameters by part and how many of them are
        trained, the backbone's stages and the pyramid's strides, tasks with their sizes and MACs, where placeholder
        tokens come in, and of a control how well it matches the submission.

    Raises:
        HarnessError: The first problem found.
    """
    submission = load_submission(file, overrides)
    asked = read_control(file, overrides)
    check_batches(submission, processes=1)
    build_balancer(submission.training.balancing, Setting({task.dataset: task.weight for task in submission.tasks}))
    splits = open_data(submission)
    robustness.check(submission, splits)
    unlabelled(submission, splits)
    with torch.random.fork_rng(devices=[]):
        network = build_network(submission, splits)
    with recomputing(network, submission.training.gradient_checkpointing):
        pass  # entering it is what refuses a network
    replacing = submission.training.placeholders.substitution
    tasks = []
    for config in submission.tasks:
        name = config.dataset
        adapter = splits.train[name]
        for split in (splits.train[name], splits.evaluation[name]):
            if not len(split):
                raise HarnessError(f"card {name}: split {split.split!r} has no images; {split.card.how_to_get}")
        if replacing is not None and replacing.strategy == "adaptive":
            held_out(task_data(submission, 0, splits, name, training=True), replacing.held_out)
        tasks.append(
            {
                "dataset": name,
                "task": adapter.task,
                "train_images": len(adapter),
                "evaluation_images": len(splits.evaluation[name]),
                "classes": len(adapter.classes),
                "image_size": " x ".join(map(str, config.image_size)),
                "macs": macs_per_image(network, name, task_data(submission, 0, splits, name, training=False)),
            }
        )
    data = {name: task_data(submission, 0, splits, name, training=True) for name in splits.train}
    require_shared_weights(submission, splits, data, plan(submission, data))
    return {
        "file": str(file),
        "name": submission.name,
        "fingerprint": submission.fingerprint(),
        "submission": submission.resolved(),
        "parameters": network.parameters_by_part(),
        "trainable": network.parameters_by_part(trainable=True),
        "stages": _stages(network),
        "strides": list(submission.model.neck.strides),
        "tasks": tasks,
        "sites": network.site_names(),
        "attachments": _attachments(network),
        "control": None if asked is None else _match(load_submission(file, [*overrides, "control=null"]), submission),
    }


def _match(submission: Submission, control: Submission) -> dict[str, Any]:
    """How well a control matches what it is a control of: parameters, and multiply-adds of all training steps."""
    sides = {}
    for side, one in (("submission", submission), ("control", control)):
        with torch.random.fork_rng(devices=[]):
            network = build_network(one, open_data(one))
        sides[side] = {
            "name": one.name,
            "parameters": _sum(network.parameters_by_part()),
            "trainable": _sum(network.parameters_by_part(trainable=True)),
            "macs": step_macs(one) * one.training.steps,
        }
    return sides


def _sum(parts: Mapping[str, int]) -> int:
    return sum(count for part, count in parts.items() if part not in FOR_TRAINING)


def _stages(network: MultiTaskNetwork) -> list[dict[str, Any]]:
    """The stages of the backbone, which ``frozen`` and ``layer_decay`` count."""
    return [
        {"module": stage.module, "stride": stage.stride, "channels": stage.channels}
        for trunk in [module for module in network.modules() if isinstance(module, Trunk)][:1]
        for stage in trunk.backbone.structure.stages
    ]


def _attachments(network: MultiTaskNetwork) -> list[dict[str, Any]]:
    """Each site with what happens there, on how wide a feature, and how many parameters it takes.

    At an adapter also those of the exchange that it stands for.
    """
    if network.placeholders is None:
        return []
    strides = {f"backbone.{stage['module']}": stage["stride"] for stage in _stages(network)}
    rows = []
    for name in network.site_names():
        site = network.placeholders.sites[name.replace(".", "/")]
        row = {
            "site": name,
            "what": type(site).__name__,
            "stride": strides.get(name.rpartition("/")[2], ""),
            "parameters": sum(parameter.numel() for parameter in site.parameters()),
        }
        if isinstance(site, Adapter):
            row |= {"what": f"Adapter of width {site.bottleneck}", "exchange_parameters": site.exchange_parameters}
        rows.append(row)
    return rows
