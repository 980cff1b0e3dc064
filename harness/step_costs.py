"""What one training step of a submission costs, before it is run."""

from __future__ import annotations

import torch

from harness.run_data import build_network, open_data, task_data
from harness.submission import Submission
from harness.training.costs import macs_per_image


def step_macs(submission: Submission) -> int:
    """Multiply-adds of the forward passes of one step with all tasks: Σ batch size · MACs of an image.

    In VQA that is an image with as many questions as training asks of the first one. Adversarial tokens take every step
    twice. Passes over other images than the labelled ones are left out.

    Args:
        submission: Whose data is there.

    Raises:
        HarnessError: Data is missing, or the network cannot be built.
    """
    splits = open_data(submission)
    with torch.random.fork_rng(devices=[]):
        network = build_network(submission, splits)
    passes = 2 if submission.training.placeholders.adversarial is not None else 1
    return passes * sum(
        task.batch_size
        * macs_per_image(network, task.dataset, task_data(submission, 0, splits, task.dataset, False), task.questions)
        for task in submission.tasks
    )
