"""Mutual information of two tasks' outputs, with what chance alone gives."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.special import digamma

from harness.analysis.projection import principal_components

NEIGHBOURS = 3  # Kraskov et al. advise 2 to 4
COMPONENTS = 2  # of each task's outputs: nearest neighbours in more dimensions need far more images
PERMUTATIONS = 200


def mutual_information(x: NDArray[np.float64], y: NDArray[np.float64], neighbours: int = NEIGHBOURS) -> float:
    """Mutual information in nats of two continuous variables, by nearest neighbours.

    I = psi(k) + psi(n) - <psi(n_x + 1) + psi(n_y + 1)>, where n_x counts the samples whose x is nearer than the k-th
    neighbour in the joint space (maximum norm). Nearly unbiased for independent variables, so that single estimates may
    be below 0; too low for strongly dependent ones with few samples.

    Args:
        x: float64 [n, p].
        y: float64 [n, q].
        neighbours: k, less than n.

    Source:
        Kraskov et al. 2004, eq. 8 (arXiv:cond-mat/0305641).
    """
    n = len(x)
    joint = np.hstack([x, y])
    distances, _ = cKDTree(joint).query(joint, neighbours + 1, p=np.inf)  # the nearest one is the sample itself
    radius = np.nextafter(distances[:, -1], 0)  # strictly nearer
    counts = [cKDTree(one).query_ball_point(one, radius, p=np.inf, return_length=True) for one in (x, y)]
    # A sample counts itself, which is the "+ 1".
    return float(digamma(neighbours) + digamma(n) - sum(digamma(count).mean() for count in counts))


def information(x: NDArray[np.float64], y: NDArray[np.float64], seed: int) -> dict[str, Any] | None:
    """Mutual information of two tasks' outputs, against a null in which images are shuffled.

    Outputs are reduced to their first two principal components each, scaled to unit variance; what others say is not
    seen, so this bounds the information between the outputs from below, up to the estimator's own error.

    Args:
        x: float64 [n, p], outputs of one task.
        y: float64 [n, q], those of the other on the same images.
        seed: Of the shuffles.

    Returns:
        ``nats``, ``null_mean``, ``null_high`` (97.5% of the shuffles are below) and ``p_value`` (one-sided); None where
        outputs are the same for all images, or there are fewer than ten.
    """
    if len(x) < 10:
        return None
    draw = np.random.default_rng(seed)
    reduced = [_reduced(one, draw) for one in (x, y)]
    if any(one is None for one in reduced):
        return None
    a, b = (one for one in reduced if one is not None)
    value = mutual_information(a, b)
    null = np.array([mutual_information(a, b[draw.permutation(len(b))]) for _ in range(PERMUTATIONS)])
    return {
        "nats": value,
        "null_mean": float(null.mean()),
        "null_high": float(np.quantile(null, 0.975)),
        "p_value": float((1 + (null >= value).sum()) / (1 + PERMUTATIONS)),
    }


def _reduced(x: NDArray[np.float64], draw: np.random.Generator) -> NDArray[np.float64] | None:
    coordinates, _ = principal_components(x, COMPONENTS)
    coordinates = coordinates[:, coordinates.std(0) > 0]
    if not coordinates.shape[1]:
        return None
    # Equal values have no neighbours in any order; noise far below any distance tells them apart (Kraskov, section II).
    return coordinates / coordinates.std(0) + 1e-10 * draw.standard_normal(coordinates.shape)
