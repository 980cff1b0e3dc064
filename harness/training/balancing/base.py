"""What every balancing method is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from harness.documents import Section
from harness.registry import look_up
from harness.training.balancing import BALANCING


@dataclass(frozen=True)
class Setting:
    """What a method may know of the run.

    Attributes:
        weights: ``tasks[].weight`` by dataset name.
        seed: Of the run; the same in every process.
        epoch: Steps in which the task that takes longest sees its data once.
    """

    weights: Mapping[str, float]
    seed: int = 0
    epoch: int = 1


class Balancer(nn.Module):
    """Makes one loss of those of the tasks. A task that rests in a step has no loss in it, and none is exactly 0.

    `forward` may be called several times in a step, or not at all; what changes from step to step changes in `observe`.
    Whatever changes is in `state_dict`, and is the same in every process.

    Args:
        config: The method's section.
        setting: What it may know of the run.

    Attributes:
        linear: `forward` is linear in the losses: weights do not depend on those of the step.
        by_task: It works on the tasks' gradients, in `aggregate`, not on losses.
        constant: Weights never change, so that there is nothing to show.
        watches: `see` wants norms of gradients at the `watched` parameter.
        measures: `judge` wants to know how well the tasks do.
        looks_back: `look_back` wants the losses of the same batches after the optimizer's step.
    """

    linear: ClassVar[bool] = True
    by_task: ClassVar[bool] = False
    constant: ClassVar[bool] = False
    looks_back: ClassVar[bool] = False
    watches: ClassVar[bool] = False
    measures: ClassVar[bool] = False

    def __init__(self, config: Section, setting: Setting) -> None:
        super().__init__()
        self.tasks = tuple(setting.weights)

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """One scalar of the tasks' scalar losses."""
        return torch.stack(list(losses.values())).sum()

    def weigh(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weight of each task's gradient: the derivative of `forward` by the task's loss, a scalar by task.

        Args:
            losses: Of the whole step, by task; a linear method takes any.
        """
        values = [loss.detach().requires_grad_() for loss in losses.values()]
        weights = torch.autograd.grad(self(dict(zip(losses, values, strict=True))), values)
        return dict(zip(losses, weights, strict=True))

    @property
    def repeats(self) -> bool:
        """Whether several backward passes may go through the graph of one forward pass."""
        return self.by_task or self.watches or not self.linear

    def observe(self, losses: Mapping[str, float]) -> None:
        """Called once at the end of each step, before the optimizer's, with the losses of the whole step by task."""

    def look_back(self, losses: Mapping[str, float]) -> None:
        """Called after the optimizer's step with the losses that the same batches have now, by task."""

    def watched(self, network: nn.Module, losses: Mapping[str, Tensor]) -> nn.Parameter:
        """The parameter whose gradient by each task `see` wants to know."""
        raise NotImplementedError

    def see(self, norms: Mapping[str, float], losses: Mapping[str, float]) -> None:
        """Called before `observe` with the norms of the tasks' whole gradients at the `watched` parameter."""

    def judge(self, indicators: Mapping[str, float]) -> None:
        """Called after `observe` with a number from 0 to 1 for each task of the step: how well it does."""

    def aggregate(self, jacobian: Tensor, tasks: Sequence[str]) -> tuple[Tensor, dict[str, float]]:
        """One gradient of those of the tasks.

        Args:
            jacobian: float [T, N], a row per task.
            tasks: The T tasks of this step that share anything, in alphabetical order.

        Returns:
            float [N], and each task's weight in it, where the method has weights.
        """
        raise NotImplementedError


class SelfLearning(Balancer):
    """A method with one number per task that it learns by itself, by Adam, beside the network's optimizer.

    Args:
        config: The method's section.
        setting: What it may know of the run.
        start: The numbers' first value.
        learning_rate: Of Adam.
        decay: Adam's L2 decay.
    """

    def __init__(
        self, config: Section, setting: Setting, start: float, learning_rate: float, decay: float = 0.0
    ) -> None:
        super().__init__(config, setting)
        # Not registered: the network's optimizer must not find them.
        self._numbers = {task: torch.tensor(start, requires_grad=True) for task in self.tasks}
        self._adam = torch.optim.Adam(list(self._numbers.values()), lr=learning_rate, weight_decay=decay)

    def learn(self, gradients: Mapping[str, float]) -> None:
        """One step of Adam; numbers without a gradient stay as they are."""
        for task, number in self._numbers.items():
            number.grad = torch.tensor(gradients[task]) if task in gradients else None
        self._adam.step()

    def numbers(self, tasks: Sequence[str]) -> Tensor:
        """The numbers of some tasks, float [T]."""
        return torch.stack([self._numbers[task].detach() for task in tasks])

    def set_numbers(self, values: Mapping[str, float]) -> None:
        """Replace numbers."""
        with torch.no_grad():
            for task, value in values.items():
                self._numbers[task].fill_(value)

    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        numbers = {task: number.detach().clone() for task, number in self._numbers.items()}
        return {"numbers": numbers, "adam": self._adam.state_dict()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore `get_extra_state`."""
        self.set_numbers({task: float(number) for task, number in state["numbers"].items()})
        self._adam.load_state_dict(state["adam"])


def build_balancer(config: Section, setting: Setting) -> Balancer:
    """The method that a submission names.

    Args:
        config: Its section.
        setting: What it may know of the run.

    Raises:
        HarnessError: It needs a package that is not installed.
    """
    name = str(getattr(config, "name", ""))
    balancer: Balancer = look_up(BALANCING, name, "balancing method")(config, setting)
    return balancer
