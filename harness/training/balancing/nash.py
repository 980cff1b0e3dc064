"""Nash-MTL: the tasks bargain for the direction of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.documents import Section
from harness.training.balancing.base import Balancer, Setting
from harness.training.balancing.config import NashMtlConfig

_ROUNDS = 50


class NashMtl(Balancer):
    """Nash-MTL: the Nash bargaining solution, Σ w_t g_t with (G Gᵀ) w = 1 / w, elementwise, and w > 0.

    Inner products are divided by their Frobenius norm, and the result's norm is cut at `max_norm`, as in the authors'
    code. That code (and torchjd's) approaches w by a sequence of convex programs with the solver ECOS, which is under
    the GPL, and keeps the last weights, or 1, where one has no solution, as happens when gradients conflict. Here w is
    found as what it is, the one minimum of ½ wᵀ G Gᵀ w - Σ log w_t, by Newton's method. Source: Navon et al. 2022
    (arXiv:2202.01017), section 3.1, claim 3.1 and algorithm 1.

    Args:
        config: The largest norm, and how often the weights are found anew.
        setting: Tells the tasks.
    """

    by_task = True

    def __init__(self, config: Section, setting: Setting) -> None:
        super().__init__(config, setting)
        assert isinstance(config, NashMtlConfig)
        self._every, self._limit = config.update_every, config.max_norm
        self._step = 0
        self._weights: dict[str, float] = {}

    def aggregate(self, jacobian: Tensor, tasks: Sequence[str]) -> tuple[Tensor, dict[str, float]]:
        """One gradient of those of the tasks; see `Balancer.aggregate`."""
        gramian = (jacobian @ jacobian.T).double().cpu().numpy()
        size = float(np.linalg.norm(gramian))
        if not size:
            return torch.zeros_like(jacobian[0]), {}
        if self._step % self._every == 0 or set(tasks) != set(self._weights):
            self._weights = dict(zip(tasks, bargain(gramian / size).tolist(), strict=True))
        row = torch.tensor([self._weights[task] for task in tasks]).to(jacobian)
        vector = row @ jacobian
        cut = min(1.0, self._limit / max(float(vector.norm()), 1e-30))
        return cut * vector, {task: cut * self._weights[task] for task in tasks}

    def observe(self, losses: Mapping[str, float]) -> None:
        """Count the steps."""
        self._step += 1

    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"step": self._step, "weights": self._weights}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore `get_extra_state`."""
        self._step, self._weights = state["step"], dict(state["weights"])


def bargain(gramian: NDArray[np.float64]) -> NDArray[np.float64]:
    """The w > 0 with G w = 1 / w, elementwise.

    It is the minimum of ½ wᵀGw - Σ log w_t, which is strictly convex. With w_t = b_t / √G_tt the diagonal is 1, and
    a damped Newton step that keeps b positive converges in about five rounds. Where a positive combination of gradients
    is zero (a Pareto-stationary point) there is no minimum, and weights grow until the rounds are over.

    Args:
        gramian: float64 [T, T], inner products of the gradients.

    Returns:
        float64 [T].
    """
    lengths = np.sqrt(np.maximum(np.diag(gramian), 1e-24))
    cosines = gramian / np.outer(lengths, lengths)
    found = np.ones(len(gramian))

    def value(b: NDArray[np.float64]) -> float:
        return float(0.5 * b @ cosines @ b - np.log(b).sum())

    for _ in range(_ROUNDS):
        slope = cosines @ found - 1 / found
        step = -np.linalg.solve(cosines + np.diag(found**-2), slope)
        gain = float(-slope @ step)
        if not gain > 1e-18:
            break
        shrinking = step < 0
        length = min(1.0, 0.99 * float(np.min(-found[shrinking] / step[shrinking]))) if shrinking.any() else 1.0
        while value(found + length * step) > value(found) - 0.25 * length * gain and length > 1e-10:
            length /= 2
        found = found + length * step
    result: NDArray[np.float64] = found / lengths
    return result
