"""Speed of the training loop, as ratios to peers in the same run.

    pip install --no-deps LibMTL         # a peer; left out where it is not installed
    OMP_NUM_THREADS=1 python benchmarks/training.py        # about twenty minutes

Sides take turns in short rounds, so that a slow moment hits all; ratios are medians of the rounds' ratios, times
processor seconds (set OMP_NUM_THREADS=1) without the first steps. Both sides of a comparison do the same work: where it
says so, their weights or losses are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from libmtl import CASES, compared, fresh
from rich.console import Console

from harness.data.loading import TaskData, TrainingOrder, loader
from harness.models.network import MultiTaskNetwork
from harness.progress import Reporter
from harness.run_data import open_data
from harness.submission import Submission, load_submission
from harness.training.engine import Engine
from harness.training.heap import keep_freed_memory
from harness.training.loop import train
from harness.training.optimization import build_optimizer, learning_rate

BASELINES = Path(__file__).parents[1] / "baselines"
WARM = 5  # steps that are not timed
# Processor time of this process: with one thread it does not depend on who else uses the machine. On GPUs, wall time.
clock = time.perf_counter if torch.cuda.is_available() else time.process_time
TASKS = ("classification", "detection", "segmentation", "vqa")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="rounds in which the sides take turns")
    parser.add_argument("--steps", type=int, default=40, help="steps of each side in a round")
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        print(json.dumps(alone(given.alone[0], int(given.alone[1]))))
        return
    keep_freed_memory()  # as training does: for both sides of every comparison
    overhead(given.rounds, given.steps)
    shared_images(given.rounds, given.steps)
    if find_spec("LibMTL"):
        libmtl(given.rounds, given.steps)
    joint_and_separate(3 * given.steps)


# --- The loop itself -------------------------------------------------------------------------------------------------


def overhead(rounds: int, steps: int) -> None:
    """`train`, with its logging, progress, checks and four tasks, against the least that does the same steps."""
    submission = load_submission(
        BASELINES / "shapes-placeholder.yaml", [f"training.steps={steps}", f"training.log_every={WARM}"]
    )
    splits = open_data(submission)
    ratios, weights = [], []
    for _ in range(rounds):
        seconds = []
        for side in (minimal, ours):
            network, data = fresh(submission, splits)
            seconds.append(side(submission, network, data))
            weights.append(network.state_dict())
        ratios.append(seconds[1] / seconds[0])
    same = all(torch.equal(weights[0][key], other[key]) for other in weights for key in weights[0])
    print(f"\nLoop with everything, over a minimal one; {steps} steps of four tasks, {rounds} rounds")
    print(f"  time {show(ratios)}; final weights equal bit for bit: {'yes' if same else 'no'}")


def ours(submission: Submission, network: MultiTaskNetwork, data: Mapping[str, TaskData]) -> float:
    times: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
        reporter = Reporter(Console(file=nowhere, force_terminal=True))
        engine = Engine(submission.training.precision)
        train(
            submission, network, engine, data, Path(folder), reporter,
            lambda step, point: times.setdefault(step, clock()),
        )  # fmt: skip
    return times[submission.training.steps] - times[WARM]


def minimal(submission: Submission, network: MultiTaskNetwork, data: Mapping[str, TaskData]) -> float:
    config = submission.training
    sizes = {task.dataset: task.batch_size for task in submission.tasks}
    begun = 0.0
    optimizer = build_optimizer(network, config.optimizer)
    batches = {name: iter(loader(one, TrainingOrder(one, sizes[name]), 0)) for name, one in data.items()}
    network.train()
    for step in range(config.steps):
        if step == WARM:
            begun = clock()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config.schedule, config.optimizer.learning_rate, step, config.steps)
        losses = network({name: next(batches[name]) for name in data})
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip or np.inf)
        optimizer.step()
        optimizer.zero_grad()
    return clock() - begun


# --- LibMTL ----------------------------------------------------------------------------------------------------------


def libmtl(rounds: int, steps: int) -> None:
    """Hard sharing with uncertainty weighting and three classification heads on ResNet-18, each task its own images."""
    found = compared(CASES["hard/uncertainty"], rounds, steps)
    ratios = [one / other for one, other in zip(found.ours, found.theirs, strict=True)]
    print(f"\nAgainst LibMTL's trainer: hard sharing, uncertainty weighting, three heads, ResNet-18; {steps} steps")
    print(f"  time {show(ratios)}; largest difference of a loss in the first step: {found.worst:.1e}")


# --- Joint and separate ----------------------------------------------------------------------------------------------


def joint_and_separate(steps: int) -> None:
    """Four tasks in one network, against four networks of one task each, for as many samples of each task."""
    found = {
        what: json.loads(
            subprocess.run(
                [sys.executable, __file__, "--alone", what, str(steps)], check=True, capture_output=True, text=True
            ).stdout.splitlines()[-1]
        )
        for what in ("all", *TASKS)
    }
    joint, separate = found["all"], [found[task] for task in TASKS]
    seconds = sum(one["seconds"] for one in separate)
    memory = [sum(one["bytes"] for one in separate), max(one["bytes"] for one in separate)]
    print(f"\nFour tasks together, against four runs of one task each; {steps} steps, plain network")
    print(
        f"  time {joint['seconds'] / seconds:.2f} of the four runs' sum ({joint['seconds']:.0f} s to {seconds:.0f} s)"
    )
    print(
        f"  peak memory {joint['bytes'] / memory[0]:.2f} of their sum, {joint['bytes'] / memory[1]:.2f} of the"
        f" largest's ({joint['bytes'] / 1e6:.0f} MB to {memory[0] / 1e6:.0f} and {memory[1] / 1e6:.0f} MB)"
    )
    print("  seconds alone: " + ", ".join(f"{task} {found[task]['seconds']:.0f}" for task in TASKS))


def alone(what: str, steps: int) -> dict[str, float]:
    """Time and the most memory of one training run, in this process."""
    submission = load_submission(
        BASELINES / "shapes-plain.yaml", [f"training.steps={steps}", f"training.log_every={WARM}"]
    )
    if what != "all":
        kept = [task for task in submission.tasks if task.dataset == f"shapes-{what}"]
        submission = submission.model_copy(update={"tasks": kept})
    network, data = fresh(submission, open_data(submission))
    seconds = ours(submission, network, data)
    return {"seconds": seconds, "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


# --- Shared images ---------------------------------------------------------------------------------------------------


def shared_images(rounds: int, steps: int) -> None:
    """Four tasks that annotate the same images, which are encoded once, against equally many images of each task."""
    changes = [f"training.steps={steps}", f"training.log_every={WARM}"]
    print(f"\nFour tasks on the same 16 images a step, against four times 16 images; {steps} steps, {rounds} rounds")
    for name, pixels in (("test_resnet", 64), ("resnet18", 64)):
        sides = []
        for shared in (True, False):
            submission = load_submission(
                BASELINES / "shapes-shared.yaml",
                [*changes, f"model.backbone.name={name}", f"tasks.0.image_size={pixels}"],
            )
            if not shared:
                alone = tuple(task.model_copy(update={"images_of": None}) for task in submission.tasks)
                submission = submission.model_copy(update={"tasks": alone})
            sides.append((submission, open_data(submission)))
        ratios = []
        for _ in range(rounds):
            seconds = []
            for submission, splits in sides:
                network, data = fresh(submission, splits)
                seconds.append(ours(submission, network, data))
            ratios.append(seconds[0] / seconds[1])
        print(f"  {name}: time {show(ratios)}")


def show(ratios: Sequence[float]) -> str:
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return f"{middle:.3f} of the peer's (half of the rounds: {low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
