"""Speed of the training loop, as ratios to peers in the same run.

    pip install --no-deps LibMTL         # a peer; left out where it is not installed
    OMP_NUM_THREADS=1 python benchmarks/training.py        # about twenty minutes

Sides take turns in short rounds, so that a slow moment hits all; ratios are medians of the rounds' ratios, times
processor seconds (set OMP_NUM_THREADS=1) without the first steps. Both sides of a comparison do the same work: where it
says so, their weights or losses are compared.
"""

from __future__ import annotations

import argparse
import contextlib
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
from types import ModuleType, SimpleNamespace
from typing import Any, cast
from unittest import mock

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from harness.data.loading import TaskData, TrainingOrder, loader
from harness.models.network import MultiTaskNetwork
from harness.progress import Reporter
from harness.run_data import Splits, build_network, open_data, task_data
from harness.submission import Submission, load_submission
from harness.training.engine import Engine
from harness.training.heap import keep_freed_memory
from harness.training.loop import seed_everything, train
from harness.training.optimization import build_optimizer, learning_rate

BASELINES = Path(__file__).parents[1] / "baselines"
WARM = 5  # steps that are not timed
# Processor time of this process: with one thread it does not depend on who else uses the machine. On GPUs, wall time.
clock = time.perf_counter if torch.cuda.is_available() else time.process_time
TASKS = ("classification", "detection", "segmentation", "vqa")
THREE = """
name: bench-three
model:
  backbone: {library: torchvision, name: resnet18, batch_norm: per_task}
  placeholders: {count: 0}
tasks:
  - {dataset: shapes-classification, batch_size: 16, image_size: 64, fraction: 0.9}
training:
  steps: 1
  balancing: {name: uncertainty}
  gradient_clip: null
  optimizer: {name: sgd, learning_rate: 0.01, momentum: 0, weight_decay: 0}
  schedule: {name: constant, warmup: 0}
"""


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


def fresh(submission: Submission, splits: Splits) -> tuple[MultiTaskNetwork, dict[str, TaskData]]:
    seed_everything(0)
    network = build_network(submission, splits)
    return network, {name: task_data(submission, 0, splits, name, True) for name in splits.train}


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
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        submission, splits = three_tasks(Path(name), steps)
        ratios, first = [], []
        for _ in range(rounds):
            network, data = fresh(submission, splits)
            theirs, losses = libmtl_side(submission, network, data, steps)
            network, data = fresh(submission, splits)
            ratios.append(ours(submission, network, data) / theirs)
            first.append((losses, first_losses(submission, splits)))
    worst = max(abs(a - b) for pair in first for a, b in zip(*pair, strict=True))
    print(f"\nAgainst LibMTL's trainer: hard sharing, uncertainty weighting, three heads, ResNet-18; {steps} steps")
    print(f"  time {show(ratios)}; largest difference of a loss in the first step: {worst:.1e}")


def first_losses(submission: Submission, splits: Splits) -> list[float]:
    network, data = fresh(submission, splits)
    network.train()
    batches = {name: next(iter(loader(one, TrainingOrder(one, 16), 0))) for name, one in data.items()}
    return [loss.item() for loss in network(batches).values()]


def three_tasks(folder: Path, steps: int) -> tuple[Submission, Splits]:
    """Three tasks that read the same layout under different names, so that orders and images differ."""
    from harness.cards import load_card

    source = load_card("shapes-classification")
    (folder / "datasets").mkdir()
    document = THREE.replace("steps: 1", f"steps: {steps}").splitlines()
    place = next(n for n, line in enumerate(document) if "dataset:" in line)
    lines = []
    for number in range(3):
        card = source.model_dump(mode="json", exclude_defaults=True) | {"name": f"bench-{number}"}
        (folder / "datasets" / f"bench-{number}.yaml").write_text(json.dumps(card))
        lines.append(document[place].replace("shapes-classification", f"bench-{number}"))
    document[place : place + 1] = lines
    path = folder / "three.yaml"
    path.write_text("\n".join(document))
    submission = load_submission(path, [f"training.log_every={WARM}"])
    return submission, open_data(submission)


def libmtl_side(
    submission: Submission, network: MultiTaskNetwork, data: Mapping[str, TaskData], steps: int
) -> tuple[float, list[float]]:
    """LibMTL's own `Trainer` on the same modules, weights, images and order; its time, and its first losses."""
    cpu = torch.device("cpu")
    # LibMTL 1.1.5 imports a name that torchvision has moved since.
    moved = SimpleNamespace(load_state_dict_from_url=torch.hub.load_state_dict_from_url)
    sys.modules.setdefault("torchvision.models.utils", cast("ModuleType", moved))
    with mock.patch("torch.device", return_value=cpu):  # the trainer asks for a GPU
        from LibMTL import Trainer
        from LibMTL.architecture import HPS
        from LibMTL.loss import AbsLoss
        from LibMTL.weighting import UW

    first: list[float] = []

    class CrossEntropy(AbsLoss):  # type: ignore[misc]
        def compute_loss(self, pred: Tensor, gt: Tensor) -> Tensor:
            loss = nn.functional.cross_entropy(pred, gt)
            if len(first) < len(data):
                first.append(loss.item())
            return loss

    class Accuracy:
        """LibMTL's meter wants one; it is not timed."""

        def update_fun(self, pred: Tensor, gt: Tensor) -> None: ...

        def score_fun(self) -> list[float]:
            return [0.0]

        def reinit(self) -> None: ...

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = network.shared

        def forward(self, images: Tensor) -> Tensor:
            backbone: Any = self.trunk.trunk.backbone  # type: ignore[union-attr]
            return backbone(images, None, None, 0).pooled

    class Quiet(Trainer):  # type: ignore[misc]
        def test(self, *_: Any, **__: Any) -> None: ...

    task_dict = {
        name: {"metrics": ["Acc"], "metrics_fn": Accuracy(), "loss_fn": CrossEntropy(), "weight": [1]} for name in data
    }
    decoders = nn.ModuleDict({name: network.heads[name].linear for name in data})
    with mock.patch("torch.device", return_value=cpu), mock.patch("builtins.print"):
        trainer = Quiet(
            task_dict=task_dict,
            weighting=UW,
            architecture=HPS,
            encoder_class=Encoder,
            decoders=decoders,
            rep_grad=False,
            multi_input=True,
            optim_param={"optim": "sgd", "lr": 0.01},
            scheduler_param=None,
            weight_args={},
            arch_args={},
        )
        network.train()
        loaders = {name: Batches(one, 16, steps) for name, one in data.items()}
        trainer.train(loaders, {}, 1)
        return clock() - loaders[next(iter(data))].warm, first


class Batches:
    """A data loader as LibMTL's trainer calls one."""

    def __init__(self, data: TaskData, size: int, steps: int) -> None:
        self._data, self._size, self._steps = data, size, steps
        self._given, self.warm = 0, 0.0

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Batches:
        self._batches = loader(self._data, TrainingOrder(self._data, self._size), 0)
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        """As Python 3 calls it."""
        return self.next()

    def next(self) -> tuple[Tensor, Tensor]:
        """The next images and labels; notes when the steps that are timed begin."""
        if self._given == WARM:
            self.warm = clock()
        self._given += 1
        batch: Any = next(self._batches)
        return batch.images, batch.labels


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
