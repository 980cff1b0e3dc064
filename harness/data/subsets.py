"""Label fractions: deterministic, stratified, nested subsets of a training split."""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

from harness.data.samples import Adapter


def subset(adapter: Adapter, fraction: float, draw: int = 0) -> NDArray[np.int64]:
    """Choose a share of the images.

    Every stratum (`Adapter.strata`: the class, or the rarest category of an image) gives its share, rounded up, so that
    none is lost. Within a stratum images are taken in the order of a hash of their ids: the choice does not depend on
    the machine or on the other images, and a smaller fraction lies within a larger one.

    Args:
        adapter: The split.
        fraction: In (0, 1].
        draw: Which of the possible subsets.

    Returns:
        int64 [M], indices into the split, ascending.
    """
    keys = [hashlib.blake2b(f"{draw}\0{name}".encode(), digest_size=16).digest() for name in adapter.ids]
    strata = adapter.strata()
    order = sorted(range(len(adapter)), key=keys.__getitem__)
    by_stratum = np.array(order, dtype=np.int64)[np.argsort(strata[order], kind="stable")]
    chosen = []
    for group in np.split(by_stratum, np.flatnonzero(np.diff(strata[by_stratum])) + 1):
        # Rounded to 9 digits first: 0.07 * 100 is a little more than 7.
        chosen.append(group[: math.ceil(round(fraction * len(group), 9))])
    return np.sort(np.concatenate(chosen))
