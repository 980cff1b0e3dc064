"""The training loop: one forward over a dict of task batches, one backward, one optimizer step."""

from __future__ import annotations

import math
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.data.loading import TaskData, TrainingOrder, loader
from harness.errors import HarnessError
from harness.models.network import MultiTaskNetwork
from harness.progress import Reporter
from harness.registry import look_up
from harness.submission import Submission
from harness.training import checkpoints
from harness.training.balancing import BALANCING
from harness.training.engine import Engine
from harness.training.optimization import build_optimizer, learning_rate
from harness.training.regimes import REGIMES

Curves = dict[str, list[tuple[int, float]]]
Log = Callable[[int, Mapping[str, float]], None]


@dataclass
class Progress:
    """What a run has done so far; part of every checkpoint.

    Attributes:
        step: Steps done.
        seconds: Wall time of training, summed over interrupted parts.
        images: Training images seen.
        curves: Learning curves: (step, value) by name.
        pending: Losses since the last point of the curves.
        skipped: A sentence about each training image that could not be read.
    """

    step: int = 0
    seconds: float = 0.0
    images: int = 0
    curves: Curves = field(default_factory=dict)
    pending: dict[str, list[float]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def add(self, losses: Mapping[str, float], rate: float, every: int, last: bool) -> dict[str, float] | None:
        """Take up a step's losses; returns the new point of the curves when one is due."""
        for name, value in losses.items():
            self.pending.setdefault(name, []).append(value)
        if self.step % every and not last:
            return None
        point = {f"loss/{name}": math.fsum(values) / len(values) for name, values in self.pending.items()}
        point["learning_rate"] = rate
        for name, value in point.items():
            self.curves.setdefault(name, []).append((self.step, value))
        self.pending = {}
        return point


def seed_everything(seed: int) -> None:
    """Seed every global random stream and ask for deterministic kernels."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries may draw from it
    torch.manual_seed(seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Deterministic mode also fills fresh memory with NaN, a tenth of a small network's step; nothing here reads it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


def train(
    submission: Submission,
    network: MultiTaskNetwork,
    engine: Engine,
    data: Mapping[str, TaskData],
    folder: Path,
    reporter: Reporter,
    log: Log = lambda step, point: None,
) -> Progress:
    """Train a network in place, from the newest checkpoint in `folder` if there is one.

    Args:
        submission: The recipe.
        network: Freshly built from the run's seed; ends with the final weights.
        engine: Device and precision.
        data: Training split by dataset name.
        folder: Where checkpoints go.
        reporter: Shows progress.
        log: Called with every new point of the learning curves.

    Returns:
        What was done.

    Raises:
        HarnessError: A loss is not finite, or an image cannot be read.
        KeyboardInterrupt: Ctrl-C or a termination signal came; the work so far is in the checkpoint.
    """
    config = submission.training
    steps = total_steps(submission)
    weights = {task.dataset: task.weight for task in submission.tasks}
    balancer = look_up(BALANCING, config.balancing.name, "balancing method")(weights)
    regime = look_up(REGIMES, config.regime.name, "regime")
    trainable = torch.nn.ModuleDict({"network": network, "balancer": balancer})
    optimizer = build_optimizer(trainable, config.optimizer)
    balancer.to(engine.device)
    model, optimizer = engine.prepare(network, optimizer)
    progress = _resume(folder, network, balancer, optimizer, engine)
    if progress.step:
        reporter.say(f"resuming at step {progress.step} of {steps}")
    sizes = {task.dataset: task.batch_size for task in submission.tasks}
    batches = {
        name: iter(loader(split, TrainingOrder(split, sizes[name], progress.step), config.workers))
        for name, split in data.items()
    }
    network.train()
    with _stop_signals() as stopped, reporter.bar("training", steps, progress.step) as bar:
        begun = time.perf_counter() - progress.seconds

        def keep() -> None:
            progress.seconds = time.perf_counter() - begun
            checkpoints.save(folder, _state(progress, network, balancer, optimizer, engine))

        while progress.step < steps:
            rate = learning_rate(config.schedule, config.optimizer.learning_rate, progress.step, steps)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["scale"]
            tasks = regime(progress.step, steps, list(data))
            step_batches = {name: next(batches[name]).to(engine.device) for name in tasks}
            losses: dict[str, Tensor] = model(step_batches)
            values = _values(losses, progress.step)
            engine.backward(balancer(losses))
            if config.gradient_clip is not None:
                engine.clip(model, config.gradient_clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            progress.step += 1
            for sentence in [one for batch in step_batches.values() for one in batch.skipped]:
                if sentence not in progress.skipped:
                    progress.skipped.append(sentence)
                    reporter.say(f"skipped: {sentence}")
            progress.images += sum(len(batch.ids) for batch in step_batches.values())
            point = progress.add(values, rate, config.log_every, progress.step == steps)
            if point is not None:
                log(progress.step, point)
            bar.advance(detail=" ".join(f"{name} {value:.3f}" for name, value in values.items()))
            if stopped:
                keep()
                raise KeyboardInterrupt
            if progress.step % config.checkpoint_every == 0 and progress.step < steps:
                keep()
        progress.seconds = time.perf_counter() - begun
    network.eval()
    return progress


def total_steps(submission: Submission) -> int:
    """Steps of a run; a smoke run takes at most as many as it has images."""
    limit = submission.evaluation.limit
    return min(submission.training.steps, limit) if limit is not None else submission.training.steps


def _values(losses: Mapping[str, Tensor], step: int) -> dict[str, float]:
    values = dict(zip(losses, torch.stack([loss.detach().float() for loss in losses.values()]).tolist(), strict=True))
    for name, value in values.items():
        if not math.isfinite(value):
            raise HarnessError(
                f"training stopped: the loss of {name} became {value} at step {step};"
                " lower training.optimizer.learning_rate, or set training.gradient_clip"
            )
    return values


def _state(
    progress: Progress, network: torch.nn.Module, balancer: torch.nn.Module, optimizer: Any, engine: Engine
) -> dict[str, Any]:
    return {
        "progress": vars(progress),
        "network": network.state_dict(),
        "balancer": balancer.state_dict(),
        "optimizer": optimizer.state_dict(),
        "engine": engine.state(),
    }


def _resume(
    folder: Path, network: torch.nn.Module, balancer: torch.nn.Module, optimizer: Any, engine: Engine
) -> Progress:
    state = checkpoints.load(folder)
    if state is None:
        return Progress()
    network.load_state_dict(state["network"])
    balancer.load_state_dict(state["balancer"])
    optimizer.load_state_dict(state["optimizer"])
    engine.load_state(state["engine"])
    checkpoints.restore_random_states(state["random"])
    return Progress(**state["progress"])


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect the first Ctrl-C or termination signal instead of dying in the middle of a step; the second one kills."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    handled = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.getsignal(number) for number in handled}

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for each, handler in previous.items():
            signal.signal(each, handler)

    for number in handled:
        signal.signal(number, stop)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
