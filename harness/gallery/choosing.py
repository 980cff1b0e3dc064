"""Which images a gallery shows."""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np

from harness.evaluation.metric import Result

EXAMPLES = 3  # on each side
CANDIDATES = 1000  # images that are looked at
_BATCH = 128


Side = Literal["best", "worst"]


def choose(result: Result) -> list[tuple[Side, str, float]]:
    """The best and the worst images of a task.

    An image's value is the headline number as if it were the only image: the reduction with weight 1 on it and 0 on all
    others. Equal values are put in order by a hash of the image's id, which no model can influence and which does not
    favour the classes that come first.

    Args:
        result: The score of all images.

    Returns:
        Side (best or worst), image id and value; best first, then worst first. Images without a value, such as those
        without an object, are left out; no image is on both sides.
    """
    ids = [str(name) for name in result.ids]
    by_lot = sorted(range(len(ids)), key=lambda n: hashlib.sha256(ids[n].encode()).digest())[:CANDIDATES]
    values: dict[int, float] = {}
    for start in range(0, len(by_lot), _BATCH):
        part = by_lot[start : start + _BATCH]
        weights = np.zeros((len(part), len(ids)), dtype=np.int64)
        weights[np.arange(len(part)), part] = 1
        values.update(zip(part, result.reduce_main(weights).tolist(), strict=True))
    known = [n for n in by_lot if np.isfinite(values[n])]
    each = min(EXAMPLES, len(known) // 2)
    best = sorted(known, key=lambda n: -values[n])[:each]  # sorting is stable: lots stay in order among equals
    worst = sorted((n for n in known if n not in best), key=lambda n: values[n])[:each]
    chosen: list[tuple[Side, int]] = [("best", n) for n in best] + [("worst", n) for n in worst]
    return [(side, ids[n], values[n]) for side, n in chosen]
