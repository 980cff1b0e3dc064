"""How alike the tasks of one network are: the same images through every task's path."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

from harness.analysis.information import information
from harness.analysis.probe import Matrix, Probed, places, probe
from harness.analysis.run import Run
from harness.analysis.similarity import linear_cka, pearson
from harness.data.transforms import derive_seed


def relatedness(run: Run, count: int) -> dict[str, Any]:
    """How alike the tasks' tokens, features and outputs are on the same images.

    Args:
        run: Of two tasks or more.
        count: Images, about equally many of each task's evaluation split.

    Returns:
        ``images``; ``tokens[]`` and ``features[]``: ``a``, ``b``, ``cka``, ``cka_debiased``, ``pearson``,
        ``identical``; ``outputs[]``: ``a``, ``b``, ``cka``, ``cka_debiased``, ``information``. Every pair of tasks
        stands there once, and each task with itself. Numbers that are undefined are None.
    """
    images = places(run, count)
    probed = {name: probe(run, name, images) for name in run.data}
    pairs = list(combinations_with_replacement(probed, 2))
    return {
        "images": len(images),
        "tokens": [_alike(a, b, probed[a].tokens, probed[b].tokens) for a, b in pairs],
        "features": [_alike(a, b, probed[a].features, probed[b].features) for a, b in pairs],
        "outputs": [_outputs(a, b, probed, run.record.seed) for a, b in pairs],
    }


def _alike(a: str, b: str, x: Matrix | None, y: Matrix | None) -> dict[str, Any]:
    found: dict[str, Any] = {"a": a, "b": b, "cka": None, "cka_debiased": None, "pearson": None, "identical": False}
    if x is None or y is None:
        return found
    same_space = x.shape == y.shape
    return found | {
        "cka": linear_cka(x, y),
        "cka_debiased": linear_cka(x, y, debiased=True),
        "pearson": pearson(x, y) if same_space else None,
        "identical": same_space and bool(np.array_equal(x, y)),
    }


def _outputs(a: str, b: str, probed: Mapping[str, Probed], seed: int) -> dict[str, Any]:
    x, y = probed[a].outputs, probed[b].outputs
    found = {"a": a, "b": b, "cka": linear_cka(x, y), "cka_debiased": linear_cka(x, y, debiased=True)}
    between = information(x, y, derive_seed("information", seed, a, b) % 2**32) if a != b else None
    return found | {"information": between}
