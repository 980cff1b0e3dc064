"""Greedy k-center: which images are farthest from those that are there already."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 256  # centres whose distances are computed together


@torch.no_grad()
def k_center(candidates: Tensor, centres: Tensor, count: int) -> list[int]:
    """Choose one by one the candidate that is farthest from its nearest centre, which makes it a centre, too.

    The largest distance of a candidate to a centre is then at most twice the smallest that so many centres can have.
    Source: Sener & Savarese 2018 (arXiv:1708.00489), algorithm 1, with Euclidean distances; the first of equally far
    candidates is taken.

    Args:
        candidates: float [N, F].
        centres: float [M, F], those to start from, one at least.
        count: How many to choose, at most N.

    Returns:
        Places of the chosen candidates, in the order in which they were chosen.
    """
    nearest = torch.full((len(candidates),), float("inf"), dtype=candidates.dtype, device=candidates.device)
    for some in centres.split(CHUNK):
        # The quick way over products of matrices loses the digits that tell near from equal.
        apart = torch.cdist(candidates, some, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = torch.minimum(nearest, apart.amin(1))
    chosen: list[int] = []
    for _ in range(count):
        place = int((nearest == nearest.max()).nonzero()[0])
        chosen.append(place)
        nearest = torch.minimum(nearest, torch.linalg.vector_norm(candidates - candidates[place], dim=1))
        nearest[place] = -1.0  # chosen once, also among equal candidates
    return chosen
