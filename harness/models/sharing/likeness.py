"""Penalties on how the weights of several tasks differ. Each takes them as rows of one matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def spread(weights: Tensor, sizes: Sequence[int]) -> Tensor:
    """Σ_t ||θ_t - mean θ||² (Duong 2015, with the mean in place of one other task).

    Args:
        weights: float [T, P], a row for each task.
        sizes: How many of the P columns are each tensor's; they sum to P.

    Returns:
        A scalar.
    """
    return (weights - weights.mean(0)).square().sum()


def joint_sparsity(weights: Tensor, sizes: Sequence[int]) -> Tensor:
    """Σ_p sqrt(Σ_t θ_tp²), the ℓ2,1 norm (Argyriou 2008): a weight is small for all tasks, or for none.

    Args and result are those of `spread`. At 0 the gradient is 0.
    """
    return torch.linalg.vector_norm(weights, dim=0).sum()


def trace_norm(weights: Tensor, sizes: Sequence[int]) -> Tensor:
    """Σ over tensors of the trace norm of the tasks' flattened weights, stacked (Yang & Hospedales 2017).

    Args and result are those of `spread`. For a tensor's W [T, P_i] it is tr (W Wᵀ)^½, with the gradient
    (W Wᵀ)^-½ W, where directions in which the tasks do not differ have none (the smallest subgradient: that of a
    singular value decomposition is arbitrary there, and would move weights that are all zero).
    """
    grams = torch.stack([part @ part.T for part in weights.split(list(sizes), dim=1)])
    with torch.no_grad():
        values, vectors = torch.linalg.eigh(grams.double())
        least = 10 * len(weights) * torch.finfo(weights.dtype).eps * values[:, -1:]
        inverse = torch.where(values > least, values.clamp(min=1e-300).rsqrt(), 0.0)
        roots = ((vectors * inverse[:, None]) @ vectors.mT).to(weights.dtype)
    half = 0.5 * (roots * grams).sum()  # as the roots are held fixed, its gradient is all of the norm's
    return half + half.detach()


NORMS: dict[str, Callable[[Tensor, Sequence[int]], Tensor]] = {
    "l2": spread,
    "trace": trace_norm,
    "l21": joint_sparsity,
}
