"""Linear CKA of two representations of the same positions, from sums that parts and processes can add up."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from harness.training.engine import Engine


class Alignment:
    """Linear centred kernel alignment, ‖YᵀX‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F) of centred X and Y.

    Source: Kornblith et al. 2019 (arXiv:1905.00414), section 3. It is computed from Σ [x; y; 1][x; y; 1]ᵀ, to which any
    number of parts add up.
    """

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._width = 0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take up rows: float [N, C] and [N, C']."""
        rows = torch.cat([x, y, x.new_ones(len(x), 1)], dim=1).double()
        products = rows.T @ rows
        self._sum = products if self._sum is None else self._sum + products
        self._width = x.shape[1]

    def whole(self, engine: Engine) -> float:
        """CKA over all parts and processes; 0 where X or Y is the same everywhere. All processes, once."""
        total = cast(Tensor, self._sum)
        engine.average(total)
        count, sums = total[-1, -1], total[-1, :-1]
        covariance = total[:-1, :-1] / count - torch.outer(sums, sums) / count**2
        x, y = slice(None, self._width), slice(self._width, None)
        norms = covariance[x, x].norm() * covariance[y, y].norm()
        # Rounding of the difference leaves a trace of what is constant.
        tiny = 1e-12 * (total.diagonal()[:-1] / count).max() ** 2
        return float((covariance[y, x].norm() ** 2 / norms).clamp(max=1)) if norms > tiny else 0.0


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of two vectors; 0 where one is 0."""
    norms = float(a.norm() * b.norm())
    return float(a @ b) / norms if norms > 0 else 0.0
