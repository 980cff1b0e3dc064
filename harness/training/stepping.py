"""The steps of a run: one forward over a dict of task batches, one backward, one optimizer step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch

from harness.data.batches import Batch
from harness.data.joint_images import share_images
from harness.data.loading import Place, TaskData, TrainingOrder, loader
from harness.data.unlabelled import UnlabelledData
from harness.models.network import MultiTaskNetwork
from harness.submission import Submission
from harness.training.affinity import affinity
from harness.training.averaging import WeightAverage
from harness.training.balancing.base import Balancer, Setting, build_balancer
from harness.training.balancing.step import present
from harness.training.engine import Engine
from harness.training.finite import gradient_norm, require_finite, require_finite_gradient
from harness.training.gate_curves import GateCurves, reach
from harness.training.meters import Stopwatch
from harness.training.optimization import build_optimizer, learning_rate
from harness.training.parts import look_back
from harness.training.placeholders.adversarial import differentiate_with_adversary
from harness.training.placeholders.feeding import SampleFeed
from harness.training.placeholders.samples import Samples
from harness.training.placeholders.substitution.controller import substitute
from harness.training.regimes.plan import Plan


class Taken(NamedTuple):
    """What a step was.

    Attributes:
        losses: Of the whole batch by task, and the terms that are no task's by their names.
        points: Points of the learning curves beside the losses; None where the step does not end at one.
        tasks: That it trained.
        batches: This process's slices, labelled ones and others.
        images: How many images it took in all processes; those that tasks share count once.
    """

    losses: dict[str, float]
    points: dict[str, float] | None
    tasks: Sequence[str]
    batches: list[Batch]
    images: int


class Stepper:
    """Takes the steps of a run. All processes alike.

    Args:
        submission: The recipe.
        network: On its device, not wrapped yet.
        engine: Device, precision and processes.
        data: Training splits by dataset name.
        planned: Which tasks each step trains.

    Attributes:
        balancer: Makes one loss, or one gradient, of those of the tasks.
        optimizer: As prepared by the engine.
        average: Of the weights, if the recipe wants one.
        substituting: What stands for a task's features, if anything does.
    """

    def __init__(
        self,
        submission: Submission,
        network: MultiTaskNetwork,
        engine: Engine,
        data: Mapping[str, TaskData],
        planned: Plan,
    ) -> None:
        self._submission, self._config, self._plan = submission, submission.training, planned
        self._network, self._engine, self._data = network, engine, data
        self._sizes = {task.dataset: task.batch_size for task in submission.tasks}
        self._leaders = submission.leaders()
        self.balancer = self._build_balancer()
        trainable = torch.nn.ModuleDict({"network": network, "balancer": self.balancer})
        optimizer = build_optimizer(trainable, self._config.optimizer)
        self.balancer.to(engine.device)
        self.substituting = substitute(submission, network, engine, data, planned)
        self._model, self.optimizer = engine.prepare(network, optimizer)
        self.average = WeightAverage(network, self._config.ema) if self._config.ema is not None else None

    def open(self, pools: Mapping[str, UnlabelledData], done: int) -> None:
        """Begin to load the batches that are left.

        Args:
            pools: Placeholder samples by dataset name.
            done: Steps done.
        """
        counts, rank, world = self._plan.batches(done), self._engine.rank, self._engine.world
        self._batches, self._had = {}, dict(counts)
        for name, taken in counts.items():
            order: Iterable[list[Place]] = TrainingOrder(self._data[name], self._sizes[name], taken, rank, world)
            if self.substituting is not None:
                order = self.substituting.order(name, order)
            self._batches[name] = iter(loader(self._data[name], order, self._config.workers))
        self._feed = SampleFeed(self._submission, pools, self._engine, counts)

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return learning_rate(self._config.schedule, self._config.optimizer.learning_rate, step, self._plan.steps)

    def take(self, step: int, watch: Stopwatch, gates: GateCurves) -> Taken:
        """Take a step.

        Args:
            step: How many steps were taken before.
            watch: Gets its phases.
            gates: Watch steps that end at a point of the curves.

        Raises:
            HarnessError: A loss or gradient is not finite, or an image cannot be read.
        """
        rate, tasks = self.rate(step), self._plan.tasks(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self._network.advance(step, self._plan.steps)
        loaded = {name: next(self._batches[name]).to(self._engine.device) for name in tasks}
        leaders = self._led(tasks)
        batches = share_images(loaded, leaders)
        samples = self._feed.next(tasks, step)
        watch.lap("data")
        losses, points = self._differentiate(step, rate, batches, samples, watch, gates)
        self._update(step, rate, batches, losses, points)
        watch.lap("optimizer")
        images = sum(self._sizes[name] for name in tasks if name not in leaders)
        return Taken(losses, points, tasks, [*batches.values(), *(samples.batches.values() if samples else ())], images)

    def _led(self, tasks: Sequence[str]) -> dict[str, str]:
        """Whose images the tasks of the next step share. Counts their batches.

        Under regimes of stages a task may be further in the common order than the one that it follows: their images
        are others then.
        """
        had = {name: self._had[name] for name in tasks}
        self._had |= {name: count + 1 for name, count in had.items()}
        pairs = ((name, leader) for name, leader in self._leaders.items() if name in had)
        return {name: leader for name, leader in pairs if had.get(leader) == had[name]}

    def _build_balancer(self) -> Balancer:
        weights = {task.dataset: task.weight for task in self._submission.tasks}
        counts, steps = self._plan.batches(), self._plan.steps
        # Steps in which the task that takes longest sees its data once; with one batch of each task per step, its
        # batches.
        epoch = max(
            math.ceil(len(one) / self._sizes[name] * steps / max(1, counts[name])) for name, one in self._data.items()
        )
        return build_balancer(self._config.balancing, Setting(weights, next(iter(self._data.values())).seed, epoch))

    def _differentiate(
        self,
        step: int,
        rate: float,
        batches: Mapping[str, Batch],
        samples: Samples | None,
        watch: Stopwatch,
        gates: GateCurves,
    ) -> tuple[dict[str, float], dict[str, float] | None]:
        """The losses of a step, whose gradient the parameters have then, and points of the curves."""
        config, network, following = self._config, self._network, step + 1
        reach(network, step / self._plan.steps)
        related = {}
        if config.log_affinity is not None and following % config.log_affinity == 0:
            related = affinity(self._model, self._engine, batches, config.accumulation, rate)
            watch.lap("affinity")
        cosines = config.log_gradients is not None and following % config.log_gradients == 0
        points: dict[str, float] | None = None
        if cosines or related or following == self._plan.steps or following % config.log_every == 0:
            points = related
        if self.substituting is not None:
            self.substituting.begin(step, self._model, batches, rate)
            watch.lap("substitution")
        if network.objectives is not None:
            network.objectives.step = step
        with gates.watching(points is not None):
            losses = differentiate_with_adversary(
                config.placeholders.adversarial,
                *(self._model, self._engine, self.balancer, batches, config.accumulation, watch.lap, points, cosines),
                samples=samples,
            )
        require_finite(losses, step)
        return losses, points

    def _update(
        self,
        step: int,
        rate: float,
        batches: Mapping[str, Batch],
        losses: Mapping[str, float],
        points: dict[str, float] | None,
    ) -> None:
        """The optimizer's step, and what learns from it."""
        config, limit = self._config, self._config.gradient_clip
        norm = gradient_norm(self._network) if limit is None else self._engine.clip(self._model, limit)
        if config.precision != "16":  # whose scaler notices, leaves out the step and scales less
            require_finite_gradient(norm, self._network, self._engine, batches, step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.balancer.looks_back:
            after = look_back(self._model, self._engine, batches, config.accumulation)
            self.balancer.look_back({task: after[task] for task in present({task: losses[task] for task in batches})})
        if self.substituting is not None:
            self.substituting.end(losses, rate, points)
        if self.average is not None:
            self.average.update()
