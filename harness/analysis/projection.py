"""High-dimensional points as pictures: principal components, and UMAP where it is installed."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from harness.analysis.similarity import centred

Matrix = NDArray[np.float64]
NEGLIGIBLE = 1e-12  # of the largest singular value: rounding


def principal_components(points: Matrix, count: int = 2) -> tuple[Matrix, list[float]]:
    """Project onto the directions of largest variance.

    Each direction's sign is chosen so that its largest loading is positive: the same points give the same picture.

    Args:
        points: float64 [n, d].
        count: How many directions.

    Returns:
        float64 [n, count] coordinates, 0 where there are fewer directions; and each direction's share of the variance.
    """
    points = centred(points)
    _, values, directions = np.linalg.svd(points, full_matrices=False)
    kept = min(count, int((values > NEGLIGIBLE * values.max(initial=0)).sum()))
    directions = directions[:kept]
    largest = np.abs(directions).argmax(1)
    directions = directions * np.sign(directions[np.arange(kept), largest])[:, None]
    total = float((values**2).sum())
    shares = [float(value**2 / total) for value in values[:kept]]
    missing = count - kept
    return np.pad(points @ directions.T, ((0, 0), (0, missing))), [*shares, *[0.0] * missing]


def umap(points: Matrix, seed: int) -> Matrix | None:
    """A UMAP picture of points (McInnes 2018), or None where ``umap-learn`` is not installed.

    Distances between groups and their sizes mean nothing in it, only who is whose neighbour.

    Args:
        points: float64 [n, d].
        seed: Of its random start.
    """
    if find_spec("umap") is None or len(points) < 4:
        return None
    reducer = import_module("umap").UMAP(random_state=seed, n_neighbors=min(15, len(points) - 1), n_jobs=1)
    return np.asarray(reducer.fit_transform(points), dtype=np.float64)
