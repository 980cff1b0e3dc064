"""Projection onto the dual cone of gradients, by scipy. Needs torchjd; only methods that use it import this."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor
from torchjd.linalg import DualConeProjector


class DualCone(DualConeProjector):
    """Solves min_v vᵀGv with v ≥ u by non-negative least squares.

    With d = v - u and G = AᵀA it is min_d ‖Ad + Au‖ with d ≥ 0 (Lawson and Hanson 1974, chapter 23). Torchjd's own
    projector needs quadprog, which is under the GPL, and adds 1e-4 to the diagonal of the normalised G.
    """

    def __call__(self, U: Tensor, G: Tensor) -> Tensor:
        """Weights of the projections.

        Args:
            U: float [..., T], weights of what is projected.
            G: float [T, T], the gradients' inner products.

        Returns:
            float [..., T].
        """
        values, vectors = np.linalg.eigh(G.detach().double().cpu().numpy())
        root = np.sqrt(values.clip(min=0))[:, None] * vectors.T
        given = U.detach().double().cpu().numpy()
        found = [one + nnls(root, -root @ one)[0] for one in given.reshape(-1, given.shape[-1])]
        return torch.as_tensor(np.stack(found).reshape(given.shape), device=U.device, dtype=U.dtype)
