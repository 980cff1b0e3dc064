"""Beside LibMTL, for the methods that both have: our step's time over that of LibMTL's own trainer.

    pip install --no-deps LibMTL         # 1.1.5
    OMP_NUM_THREADS=1 python benchmarks/libmtl.py [--rounds 3] [--steps 8] [--only hard/uncertainty ...]

Three classification tasks on ResNet-18 (torchvision). Both sides get the same images in the same order from the same
loader, and start from the same weights where they have the same modules. Both train whole epochs of `steps` steps; the
last one is timed, in processor seconds (with OMP_NUM_THREADS=1), and sides take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast
from unittest import mock

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from harness.cards import load_card
from harness.data.loading import TaskData, TrainingOrder, loader
from harness.models.network import MultiTaskNetwork
from harness.progress import Reporter
from harness.provenance import hardware, packages
from harness.run_data import Splits, build_network, open_data, task_data
from harness.submission import Submission, load_submission
from harness.training.engine import Engine
from harness.training.heap import keep_freed_memory
from harness.training.loop import seed_everything, train

# Processor time of this process: with one thread it does not depend on who else uses the machine. On GPUs, wall time.
clock = time.perf_counter if torch.cuda.is_available() else time.process_time
SIZE, BATCH, RATE = 64, 8, 0.01
EXPERTS = 2  # of each task, and shared ones; MMoE has twice as many, all shared


@dataclass(frozen=True)
class Case:
    """What is compared.

    Attributes:
        sharing: Our architecture.
        balancing: Our balancer.
        architecture: LibMTL's class.
        weighting: LibMTL's class.
        same_images: All tasks annotate the same images, which LibMTL's architecture demands.
        maps: LibMTL's encoder gives the last map instead of the pooled feature.
        epochs: How many, the last one timed; before it a method may weigh equally for want of a history.
        contiguous: LibMTL takes gradients as views, which fails with the channels-last weights of our networks: on its
            side they are contiguous.
        weight_args: Of LibMTL's weighting.
        note: Where definitions differ; empty where both compute the same.
    """

    sharing: str = "hard"
    balancing: str = "equal"
    architecture: str = "HPS"
    weighting: str = "EW"
    same_images: bool = False
    maps: bool = False
    epochs: int = 2
    contiguous: bool = False
    weight_args: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


UNCERTAINTY = "the other constants: LibMTL weighs every loss by e^-s / 2 and starts at s = -0.5"
GRADNORM = "LibMTL takes gradients of all shared weights, ours those of the last shared one, as published"
PCGRAD = "orders of projection are drawn by other random numbers; ours is torchjd's"
STITCH = "LibMTL mixes 3 times by one number for each source, the same for all readers; ours 4 times by T x T a channel"
MMOE = "LibMTL's experts are whole encoders that read pixels (4 networks), as its gates do; ours stand behind one trunk"
CGC = "as MMoE: 2 shared and 2 own encoders a task (8 networks) against 2 and 2 small experts behind one trunk"
PLE = "as CGC, mixed after each of 5 stages and without the gate of the shared experts, which ours have between levels"
CASES = {
    "hard/equal": Case(),
    "hard/uncertainty": Case(balancing="uncertainty", weighting="UW", note=UNCERTAINTY),
    "hard/gradnorm": Case(
        balancing="gradnorm", weighting="GradNorm", contiguous=True, weight_args={"alpha": 1.5}, note=GRADNORM
    ),
    "hard/dwa": Case(balancing="dwa", weighting="DWA", weight_args={"T": 2.0}, epochs=3),
    "hard/pcgrad": Case(balancing="pcgrad", weighting="PCGrad", contiguous=True, note=PCGRAD),
    "cross_stitch/equal": Case("cross_stitch", architecture="Cross_stitch", same_images=True, maps=True, note=STITCH),
    "mmoe/equal": Case("mmoe", architecture="MMoE", note=MMOE),
    "cgc/equal": Case("cgc", architecture="CGC", note=CGC),
    "ple/equal": Case("ple", architecture="PLE", same_images=True, maps=True, note=PLE),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds in which the sides take turns")
    parser.add_argument("--steps", type=int, default=8, help="steps of an epoch")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help=", ".join(CASES))
    given = parser.parse_args()
    if not find_spec("LibMTL"):
        sys.exit("LibMTL is not installed: pip install --no-deps LibMTL")
    keep_freed_memory()  # as training does: for both sides of every comparison
    print(f"{hardware()}, {torch.get_num_threads()} threads, torch {packages()['torch']}\n")
    print("| method | ours | LibMTL | ours over LibMTL's (range) | first losses | what differs |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in given.only:
        print(row(name, compared(CASES[name], given.rounds, given.steps)), flush=True)


def row(name: str, found: Compared) -> str:
    ratios = [one / other for one, other in zip(found.ours, found.theirs, strict=True)]
    cells = [
        f"`{name}`",
        *(f"{1000 * float(np.median(side)):.0f} ms" for side in (found.ours, found.theirs)),
        f"{float(np.median(ratios)):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
        "equal" if found.worst < 1e-5 else f"differ by {found.worst:.2f}",
        CASES[name].note or "nothing",
    ]
    return f"| {' | '.join(cells)} |"


@dataclass
class Compared:
    """Seconds of a step of each side in each round, and the largest difference of a loss in the first step."""

    ours: list[float]
    theirs: list[float]
    worst: float


def compared(case: Case, rounds: int, steps: int) -> Compared:
    """Let both sides take turns."""
    found = Compared([], [], 0.0)
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        submission, splits = three_tasks(Path(name), case, steps)
        own = first_losses(submission, splits)
        for number in range(rounds):
            for side in ("ours", "theirs") if number % 2 else ("theirs", "ours"):
                network, data = fresh(submission, splits)
                if side == "ours":
                    found.ours.append(our_side(submission, network, data, steps) / steps)
                    continue
                seconds, losses = libmtl_side(case, network, data, steps)
                found.theirs.append(seconds / steps)
                found.worst = max([found.worst, *(abs(a - b) for a, b in zip(losses, own, strict=True))])
    return found


# --- The harness -----------------------------------------------------------------------------------------------------


def three_tasks(folder: Path, case: Case, steps: int) -> tuple[Submission, Splits]:
    """Three tasks that read the same layout under different names, so that orders and images differ, or are the same.

    Args:
        folder: The current one; cards go below it.
        case: What is compared.
        steps: Of an epoch.
    """
    source = load_card("shapes-classification")
    (folder / "datasets").mkdir()
    names = [f"bench-{number}" for number in range(3)]
    for name in names:
        card = source.model_dump(mode="json", exclude_defaults=True) | {"name": name}
        (folder / "datasets" / f"{name}.yaml").write_text(json.dumps(card))
    tasks: list[dict[str, Any]] = [{"dataset": name, "batch_size": BATCH, "image_size": SIZE} for name in names]
    for task in tasks[1:] if case.same_images else ():
        task["images_of"] = names[0]
    # Where tasks have images of their own they go through the network one by one, as LibMTL sends them.
    statistics = "shared" if case.same_images else "per_task"
    balancing = {"name": case.balancing} | ({"epoch": steps} if case.balancing == "dwa" else {})
    sharing: dict[str, Any] = {"name": case.sharing}
    sharing |= {"cgc": {"own": EXPERTS, "shared": EXPERTS}, "ple": {"own": EXPERTS, "shared": EXPERTS}}.get(
        case.sharing, {}
    )
    document = {
        "name": "bench-three",
        "model": {
            "backbone": {"library": "torchvision", "name": "resnet18", "batch_norm": statistics},
            "placeholders": {"count": 0},
            "sharing": sharing,
        },
        "tasks": tasks,
        "training": {
            "steps": case.epochs * steps,
            "balancing": balancing,
            "gradient_clip": None,
            "optimizer": {"name": "sgd", "learning_rate": RATE, "momentum": 0, "weight_decay": 0},
            "schedule": {"name": "constant", "warmup": 0},
            "log_every": steps,
        },
    }
    path = folder / "three.yaml"
    path.write_text(json.dumps(document))
    submission = load_submission(path)
    return submission, open_data(submission)


def fresh(submission: Submission, splits: Splits) -> tuple[MultiTaskNetwork, dict[str, TaskData]]:
    """A network at its start, and its data."""
    seed_everything(0)
    network = build_network(submission, splits)
    return network, {name: task_data(submission, 0, splits, name, True) for name in splits.train}


def our_side(submission: Submission, network: MultiTaskNetwork, data: Mapping[str, TaskData], timed: int) -> float:
    """Seconds of the last `timed` steps of a whole run, with its logging.

    Without bars: these are drawn twice a second, however long a step takes where others use the machine, too.
    """
    times: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
        reporter = Reporter(Console(file=nowhere))
        engine = Engine(submission.training.precision)
        train(
            submission, network, engine, data, Path(folder), reporter,
            lambda step, point: times.setdefault(step, clock()),
        )  # fmt: skip
    steps = submission.training.steps
    return times[steps] - times[steps - timed]


def first_losses(submission: Submission, splits: Splits) -> list[float]:
    """Losses of the first step, before any weight has moved."""
    network, data = fresh(submission, splits)
    network.train()
    batches = {name: next(iter(loader(one, TrainingOrder(one, BATCH), 0))) for name, one in data.items()}
    return [network(batches)[name].item() for name in data]


# --- LibMTL ----------------------------------------------------------------------------------------------------------


def libmtl_side(
    case: Case, network: MultiTaskNetwork, data: Mapping[str, TaskData], steps: int
) -> tuple[float, list[float]]:
    """LibMTL's own `Trainer` on the same modules, weights, images and order.

    Args:
        case: What is compared.
        network: Ours, whose modules it takes.
        data: By task.
        steps: Of an epoch, of which the last is timed.

    Returns:
        Seconds of the last epoch, and the losses of the first step.
    """
    cpu = torch.device("cpu")
    # LibMTL 1.1.5 imports a name that torchvision has moved since.
    moved = SimpleNamespace(load_state_dict_from_url=torch.hub.load_state_dict_from_url)
    sys.modules.setdefault("torchvision.models.utils", cast("ModuleType", moved))
    with mock.patch("torch.device", return_value=cpu):  # the trainer asks for a GPU
        from LibMTL import Trainer, architecture, weighting
        from LibMTL.loss import AbsLoss

    first: list[float] = []

    class CrossEntropy(AbsLoss):  # type: ignore[misc]
        def compute_loss(self, pred: Tensor, gt: Tensor) -> Tensor:
            loss = nn.functional.cross_entropy(pred, gt)
            if len(first) < len(data):
                first.append(loss.item())
            return loss

    if case.contiguous:
        network.to(memory_format=torch.contiguous_format)

    class Quiet(Trainer):  # type: ignore[misc]
        def test(self, *_: Any, **__: Any) -> None: ...

    task_dict = {
        name: {"metrics": ["Acc"], "metrics_fn": Accuracy(), "loss_fn": CrossEntropy(), "weight": [1]} for name in data
    }
    decoders = nn.ModuleDict({name: _decoder(network.heads[name].linear, case.maps) for name in data})
    with mock.patch("torch.device", return_value=cpu), mock.patch("builtins.print"):
        trainer = Quiet(
            task_dict=task_dict,
            weighting=getattr(weighting, case.weighting),
            architecture=_with_gradients(getattr(architecture, case.architecture)),
            encoder_class=_encoders(network),
            decoders=decoders,
            rep_grad=False,
            multi_input=not case.same_images,
            optim_param={"optim": "sgd", "lr": RATE},
            scheduler_param=None,
            weight_args=dict(case.weight_args),
            arch_args=_arch_args(case, len(data)),
        )
        network.train()
        mean, std = _constants(network)
        watch = Watch(steps * (case.epochs - 1))
        if case.same_images:
            loaders: Any = SharedBatches(data, steps, mean, std, watch)
        else:
            watches = [watch] + [Watch(-1)] * (len(data) - 1)
            loaders = {
                name: Batches(one, steps, mean, std, own)
                for (name, one), own in zip(data.items(), watches, strict=True)
            }
        trainer.train(loaders, {}, case.epochs)
        return clock() - watch.begun, first


class Accuracy:
    """LibMTL's meter wants one; it is not timed."""

    def update_fun(self, pred: Tensor, gt: Tensor) -> None:
        """Of a batch."""

    def score_fun(self) -> list[float]:
        """Of an epoch."""
        return [0.0]

    def reinit(self) -> None:
        """Forget an epoch."""


class Watch:
    """Notes when the step begins from which on time counts."""

    def __init__(self, step: int) -> None:
        self._step, self._count, self.begun = step, 0, 0.0

    def tick(self) -> None:
        """A step begins."""
        if self._count == self._step:
            self.begun = clock()
        self._count += 1


class Batches:
    """A data loader as LibMTL's trainer calls one: normalised images, and labels."""

    def __init__(self, data: TaskData, steps: int, mean: Tensor, std: Tensor, watch: Watch) -> None:
        self._batches = iter(loader(data, TrainingOrder(data, BATCH), 0))
        self._steps, self._mean, self._std, self._watch = steps, mean, std, watch

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> tuple[Tensor, Any]:
        """As Python 3 calls it."""
        return self.next()

    def next(self) -> tuple[Tensor, Any]:
        """As LibMTL does."""
        self._watch.tick()
        batch: Any = next(self._batches)
        return (batch.images.contiguous().float() / 255 - self._mean) / self._std, batch.labels


class SharedBatches(Batches):
    """The same images for all tasks, read for each as our side reads them, and labels by task."""

    def __init__(self, data: Mapping[str, TaskData], steps: int, mean: Tensor, std: Tensor, watch: Watch) -> None:
        first, *others = data
        super().__init__(data[first], steps, mean, std, watch)
        self._first = first
        self._others = {name: iter(loader(data[name], TrainingOrder(data[name], BATCH), 0)) for name in others}

    def next(self) -> tuple[Tensor, Any]:
        """As LibMTL calls it."""
        images, labels = super().next()
        return images, {self._first: labels} | {name: next(one).labels for name, one in self._others.items()}  # type: ignore[union-attr]


def _with_gradients(architecture: type) -> type:
    """The architecture as it was written for: today's torch forgets gradients instead of setting them to 0."""

    def zero(self: Any) -> None:
        for parameter in self.get_share_params():
            if parameter.grad is not None:
                parameter.grad.zero_()

    return type(architecture.__name__, (architecture,), {"zero_grad_share_params": zero})


def _encoders(network: MultiTaskNetwork) -> Callable[[], nn.Module]:
    """What LibMTL calls for each of its encoders: our trunk, or each task's column, then copies."""
    shared: Any = network.shared
    trunks = list(shared.columns.values()) if hasattr(shared, "columns") else [shared.trunk]
    for trunk in trunks:
        for module in trunk.backbone.body.modules():  # our network reads and mixes features by these
            module._forward_hooks.clear()
    bodies = iter([trunk.backbone.body for trunk in trunks])
    return lambda: next(bodies, None) or deepcopy(trunks[0].backbone.body)


def _constants(network: MultiTaskNetwork) -> tuple[Tensor, Tensor]:
    shared: Any = network.shared
    trunk = next(iter(shared.columns.values())) if hasattr(shared, "columns") else shared.trunk
    return trunk.backbone.mean, trunk.backbone.std


def _decoder(linear: nn.Module, maps: bool) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear) if maps else linear


def _arch_args(case: Case, tasks: int) -> dict[str, Sequence[int]]:
    if case.architecture == "MMoE":
        return {"img_size": [3, SIZE, SIZE], "num_experts": [2 * EXPERTS]}
    if case.architecture in ("CGC", "PLE"):
        return {"img_size": [3, SIZE, SIZE], "num_experts": [EXPERTS] * (1 + tasks)}
    return {}


if __name__ == "__main__":
    main()
