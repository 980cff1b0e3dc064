"""GradNorm: tasks get gradients of like norm, larger where they learn slowly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harness.documents import Section
from harness.errors import HarnessError
from harness.training.balancing.base import SelfLearning, Setting
from harness.training.balancing.config import GradNormConfig
from harness.training.balancing.graph import last_shared

SMALLEST = 0.01  # a weight that reached 0 could not come back, and a negative one would unlearn (ours)


class GradNorm(SelfLearning):
    """GradNorm: Σ w_t L_t, with weights that learn to minimise Σ |G_t - Ḡ · r_t^α|; they sum to T.

    G_t = w_t ‖∇_W L_t‖ is the norm of a task's gradient at W, the last shared weight, Ḡ the mean over the tasks, and
    r_t = (L_t / L_t(0)) / (mean of that over tasks) how slowly it learns. The target Ḡ · r_t^α is a constant: no
    gradient goes through it. Norms are those of the whole step, whatever parts it is taken in. W is the weight that the
    forward pass uses last among those that all tasks of the step reach. Source: Chen et al. 2018 (arXiv:1711.02257),
    algorithm 1; Adam for the weights, its learning rate and the least weight of 0.01 are ours.

    Args:
        config: α and the learning rate of the weights.
        setting: Tells the tasks.
    """

    watches = True

    def __init__(self, config: Section, setting: Setting) -> None:
        assert isinstance(config, GradNormConfig)
        super().__init__(config, setting, 1.0, config.learning_rate)
        self._alpha = config.alpha
        self._first: dict[str, float] = {}
        self._last_shared: dict[frozenset[str], nn.Parameter] = {}

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of scalar losses."""
        values = torch.stack(list(losses.values()))
        return (self.numbers(list(losses)).to(values) * values).sum()

    def watched(self, network: nn.Module, losses: Mapping[str, Tensor]) -> nn.Parameter:
        """The weight that is used last among those that all tasks reach.

        Raises:
            HarnessError: There is none.
        """
        tasks = frozenset(losses)
        if tasks not in self._last_shared:
            # What stands between the trunk and some heads in some steps only is no weight that tasks share.
            passing = getattr(network, "substitution", None)
            left_out = set(passing.parameters()) if passing is not None else set()
            trained = [one for one in network.parameters() if one.requires_grad and one not in left_out]
            found = last_shared(list(losses.values()), trained)
            if found is None:
                raise HarnessError(
                    f"training.balancing: gradnorm found no weight that {', '.join(losses)} all reach; share some, or"
                    " take another method"
                )
            self._last_shared[tasks] = found
        return self._last_shared[tasks]

    def see(self, norms: Mapping[str, float], losses: Mapping[str, float]) -> None:
        """Learn the weights of the next step."""
        for task, loss in losses.items():
            self._first.setdefault(task, loss)
        tasks = list(losses)
        weights = dict(zip(tasks, self.numbers(tasks).tolist(), strict=True))
        rates = {task: losses[task] / self._first[task] if self._first[task] > 0 else 1.0 for task in tasks}
        mean_rate = math.fsum(rates.values()) / len(tasks)
        sizes = {task: weights[task] * norms[task] for task in tasks}
        mean = math.fsum(sizes.values()) / len(tasks)
        if not math.isfinite(mean) or mean_rate <= 0:
            return  # the step's own checks say what is wrong
        targets = {task: mean * (rates[task] / mean_rate) ** self._alpha for task in tasks}
        self.learn({task: norms[task] * _sign(sizes[task] - targets[task]) for task in tasks})
        found = dict(zip(tasks, self.numbers(tasks).clamp(min=SMALLEST).tolist(), strict=True))
        scale = math.fsum(weights.values()) / math.fsum(found.values())  # resting tasks keep theirs
        self.set_numbers({task: scale * weight for task, weight in found.items()})

    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return super().get_extra_state() | {"first": self._first}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore `get_extra_state`."""
        super().set_extra_state(state)
        self._first = dict(state["first"])


def _sign(value: float) -> float:
    return float(value > 0) - float(value < 0)
