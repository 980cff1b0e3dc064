"""Every check that `harness submit` would make before training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from harness.errors import HarnessError
from harness.runs import build_network, open_data, task_data
from harness.submission import load_submission
from harness.training.costs import macs_per_image


def check(file: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Check a submission: schema, data, network, and one sample of every task through its head.

    Args:
        file: The submission.
        overrides: As `load_submission` takes them.

    Returns:
        A report of plain JSON values: parameters by part, tasks with their sizes and MACs, exchange sites.

    Raises:
        HarnessError: The first problem found.
    """
    submission = load_submission(file, overrides)
    splits = open_data(submission)
    with torch.random.fork_rng(devices=[]):
        network = build_network(submission, splits)
    tasks = []
    for config in submission.tasks:
        name = config.dataset
        adapter = splits.train[name]
        for split in (splits.train[name], splits.evaluation[name]):
            if not len(split):
                raise HarnessError(f"card {name}: split {split.split!r} has no images; {split.card.how_to_get}")
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
    return {
        "file": str(file),
        "name": submission.name,
        "fingerprint": submission.fingerprint(),
        "parameters": network.parameters_by_part(),
        "tasks": tasks,
        "sites": network.site_names(),
    }
