"""What a source's output is expected to be worth: a linear model that learns from what others were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

RIDGE = 0.1  # keeps the coefficients small while there are few observations (ours)


class GainModel:
    """Ridge regression of gains on a few numbers and a constant; without observations it expects 0.

    w = (Σ x xᵀ + λ I)⁻¹ Σ x y, in float64, from sums: what it remembers does not grow.

    Args:
        inputs: How many numbers.
    """

    def __init__(self, inputs: int) -> None:
        self._products = torch.zeros(inputs + 1, inputs + 1, dtype=torch.float64)
        self._targets = torch.zeros(inputs + 1, dtype=torch.float64)

    def learn(self, inputs: Sequence[float], gain: float) -> None:
        """Take up one observation."""
        x = _vector(inputs)
        self._products += torch.outer(x, x)
        self._targets += x * gain

    def expect(self, inputs: Sequence[float]) -> float:
        """The gain that is expected."""
        ridge = RIDGE * torch.eye(len(self._targets), dtype=torch.float64)
        return float(torch.linalg.solve(self._products + ridge, self._targets) @ _vector(inputs))

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"products": self._products.clone(), "targets": self._targets.clone()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore `state`."""
        self._products, self._targets = state["products"].clone(), state["targets"].clone()


def _vector(inputs: Sequence[float]) -> Tensor:
    return torch.tensor([1.0, *inputs], dtype=torch.float64)
