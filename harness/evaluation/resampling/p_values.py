"""p-values from draws, and of families of tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Holm 1979): p-values that may be held against one level as a family.

    Raises:
        HarnessError: A p-value is not in [0, 1].
    """
    wrong = next((p for p in p_values if not 0 <= p <= 1), None)
    if wrong is not None:
        raise HarnessError(f"p_values: {wrong} is not in [0, 1]")
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda n: p_values[n])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def p_value(differences: NDArray[np.float64], estimate: float | None = None) -> float:
    """See `paired_difference`, and with the estimate `paired_breakdown`."""
    defined = differences[np.isfinite(differences)]
    smaller = min(np.count_nonzero(defined <= 0), np.count_nonzero(defined >= 0))
    p = min(1.0, 2 * (1 + smaller) / (1 + len(defined)))
    if estimate is None or smaller:
        return p
    spread = float(defined.std()) if len(defined) else 0.0
    return min(p, math.erfc(abs(estimate) / spread / math.sqrt(2))) if spread > 0 else p


def p_value_with_seeds(over_images: NDArray[np.float64], spread: float, freedom: float) -> float:
    """Twice the smaller share beyond zero of (draws of images) + spread · (Student's t), exact in the t."""
    from scipy.special import stdtr  # a tenth of a second that boards of single seeds need not wait

    defined = over_images[np.isfinite(over_images)] / spread
    if not len(defined):
        return 1.0
    return float(min(1.0, 2 * min(stdtr(freedom, -defined).mean(), stdtr(freedom, defined).mean())))
