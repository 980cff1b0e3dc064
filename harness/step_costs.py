"""What one training step of a submission costs, before it is run."""

from __future__ import annotations

import torch

from harness.data.joint_images import share_images
from harness.models.network import MultiTaskNetwork
from harness.run_data import Splits, build_network, open_data, task_data
from harness.submission import Submission
from harness.training.costs import macs_per_image, macs_together


def step_macs(submission: Submission) -> int:
    """Multiply-adds of the forward passes of one step with all tasks: Σ batch size · MACs of an image.

    In VQA that is an image with as many questions as training asks of the first one. Images that tasks share are
    encoded as often as in training. Adversarial tokens take every step twice. Passes over other images than the
    labelled ones are left out, and so are the objectives of tokens.

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
        task.batch_size * _image_macs(network, submission, splits, task.dataset)
        for task in submission.tasks
        if task.images_of is None
    )


def _image_macs(network: MultiTaskNetwork, submission: Submission, splits: Splits, name: str) -> int:
    """Of one image of a task, with those of the tasks that take its images."""
    names = [name, *(follower for follower, leader in submission.leaders().items() if leader == name)]
    if len(names) == 1:
        data = task_data(submission, 0, splits, name, False)
        return macs_per_image(network, name, data, submission.task(name).questions)
    batches = {name: task_data(submission, 0, splits, name, True).batch([(0, 0)]) for name in names}
    return macs_together(network, share_images(batches, submission.leaders()))
