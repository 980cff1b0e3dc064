"""How the losses of one step become its gradient: by one backward pass, or from the gradients of each task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from harness.models.network import PENALTY
from harness.training.balancing.base import Balancer
from harness.training.balancing.gradients import Jacobian, TaskGradients
from harness.training.engine import Engine


def present(losses: Mapping[str, float]) -> dict[str, float]:
    """Without the tasks that rest for the balancer: those whose loss over the whole step is exactly 0.

    Such a task had no label (label maps may be all 255), or nothing left to learn. It is no task that does well, nor a
    gradient of length 0: a method that looked at it would give it all weight, or none to the others.

    Args:
        losses: Of the whole step, by task; the same in every process.
    """
    return {task: loss for task, loss in losses.items() if loss != 0}


class Step:
    """One step of a run, which takes its parts one after another. All processes.

    A balancer that weighs losses has one backward pass per part. Its weights are those that it gives to the losses of
    the whole step, and its own parameters learn from these. Where weights depend on losses that are not known yet
    (several parts), and for a balancer that works on gradients, those of each task are collected first, over all parts
    and processes.

    Args:
        model: The network as `Engine.prepare` gave it.
        engine: The processes.
        balancer: Makes one loss of those of the tasks, or one gradient.
        tasks: Of the step.
        parts: How many parts each process takes.
        whole: The step is in one part, in one process.
        cosines: Find the cosines of the tasks' gradients, whatever the balancer needs.
    """

    def __init__(
        self,
        model: nn.Module,
        engine: Engine,
        balancer: Balancer,
        tasks: list[str],
        parts: int,
        whole: bool,
        cosines: bool,
    ) -> None:
        self._model, self._engine, self._balancer, self._tasks = model, engine, balancer, tasks
        self._parts, self._whole, self._cosines = parts, whole, cosines
        self._by_task = balancer.by_task or not (balancer.linear or parts == 1)
        self._network = engine.unwrap(model)
        self._watched: nn.Parameter | None = None
        self._gradients = self._collector(tasks) if self._by_task or cosines else None
        self._penalties: TaskGradients | None = None

    def parts(self) -> Iterator[None]:
        """Forward and backward passes belong inside: processes exchange gradients after the last part, or never."""
        if self._by_task:
            with self._engine.alone(self._model):
                for _ in range(self._parts):
                    yield
        else:
            for _ in self._engine.in_parts(self._model, range(self._parts)):
                yield

    def add(self, losses: Mapping[str, Tensor], penalty: Tensor | None) -> None:
        """Take one part.

        Args:
            losses: Its scalar losses by task, without those known to rest.
            penalty: Is added after balancing; None for none.
        """
        if self._by_task:
            assert self._gradients is not None
            self._gradients.add(losses, keep=penalty is not None)
            if penalty is not None:
                self._penalties = self._penalties or self._collector([PENALTY])
                self._penalties.add({PENALTY: penalty}, keep=False)
            return
        if not losses:  # all tasks rest
            if penalty is not None:
                self._engine.backward(penalty)
            return
        if self._balancer.watches and self._watched is None:
            self._watched = self._balancer.watched(self._network, losses)
            self._gradients = self._gradients or TaskGradients([self._watched], self._tasks, self._engine.scale)
        if self._gradients is not None:
            self._gradients.add(losses, keep=True)
        total = self._balanced(losses)
        self._engine.backward(total if penalty is None else total + penalty)

    def finish(self, losses: Mapping[str, float], points: dict[str, float] | None) -> None:
        """End the step: the parameters have their gradients, and the balancer knows.

        Args:
            losses: Of the whole step, by task, without those that rest.
            points: Gets weights and cosines, if there are any to show; None where nobody looks.
        """
        balancer = self._balancer
        if self._gradients is not None:
            self._gradients.keep(losses)
        jacobian = self._gradients.whole(self._engine) if self._gradients is not None else None
        weights: dict[str, float] = {}
        if self._by_task:
            assert jacobian is not None
            weights = self._combine(jacobian, losses)
        elif points is not None and not balancer.constant:
            weights = self._weights(losses)
        if self._by_task or not self._whole:
            self._teach(losses)
        if jacobian is not None and points is not None and (self._by_task or self._cosines):
            points |= {f"cosine/{pair}": value for pair, value in jacobian.cosines().items()}
        if points is not None and not balancer.constant:
            points |= {f"weight/{task}": weight for task, weight in weights.items()}
        if self._watched is not None and jacobian is not None and losses:
            balancer.see(jacobian.norms(self._watched), losses)
        balancer.observe(losses)

    def _collector(self, tasks: list[str]) -> TaskGradients:
        trained = [parameter for parameter in self._network.parameters() if parameter.requires_grad]
        return TaskGradients(trained, tasks, self._engine.scale)

    def _balanced(self, losses: Mapping[str, Tensor]) -> Tensor:
        """A scalar whose gradient is the part's share of the balanced gradient of the whole step."""
        if self._whole:
            return self._balancer(losses)
        values = losses
        if not self._balancer.linear:
            columns = zip(*self._engine.exchange([float(loss.detach()) for loss in losses.values()]), strict=True)
            means = [sum(column) / len(column) for column in columns]
            values = self._tensors(dict(zip(losses, means, strict=True)))
        weights = self._balancer.weigh(values)
        return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()

    def _weights(self, losses: Mapping[str, float]) -> dict[str, float]:
        if not losses:
            return {}
        return {task: float(weight) for task, weight in self._balancer.weigh(self._tensors(losses)).items()}

    def _tensors(self, losses: Mapping[str, float]) -> dict[str, Tensor]:
        return {name: torch.tensor(value, device=self._engine.device) for name, value in losses.items()}

    def _teach(self, losses: Mapping[str, float]) -> None:
        """The balancer's own parameters learn from the losses of the whole step."""
        if losses and any(parameter.requires_grad for parameter in self._balancer.parameters()):
            self._engine.backward(self._balancer(self._tensors(losses)))

    def _combine(self, jacobian: Jacobian, losses: Mapping[str, float]) -> dict[str, float]:
        """Make one gradient of those of the tasks, the parameters' own; returns the weights, where there are any."""
        scale, tasks = self._engine.scale, jacobian.tasks
        if not self._balancer.by_task:
            weights = self._weights(losses)
            row = torch.tensor([weights[task] for task in tasks]).to(jacobian.rows)
            jacobian.install(row @ jacobian.rows, row.tolist(), scale)
        else:
            if jacobian.rows.numel() and bool(torch.isfinite(jacobian.rows.sum())):
                # A task that shares nothing has no say: its row of zeros would be the shortest gradient of all.
                places = jacobian.sharing
                rows = jacobian.rows if len(places) == len(tasks) else jacobian.rows[places]
                vector, weights = self._balancer.aggregate(rows, [tasks[place] for place in places])
            else:  # handed on as it is: whoever looks at gradients says so, or leaves out the step
                vector, weights = jacobian.rows.sum(0), {}
            jacobian.install(vector, [1.0] * len(tasks), scale)
        if self._penalties is not None:
            for parameter, _, gradient in self._penalties.whole(self._engine).own:
                added = gradient * scale
                parameter.grad = added if parameter.grad is None else parameter.grad + added
        return weights
