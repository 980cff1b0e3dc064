"""Features of a frozen backbone that lie elsewhere: which row of which store belongs to an image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor

from harness.models.feature_memory import Outputs

_BITS = 40  # of a row; the store's number stands above them


class FeatureStore(Protocol):
    """Features of many images."""

    def outputs(self, rows: Sequence[int], mapped: int) -> Outputs:
        """Pooled features of all rows and maps of the first `mapped`, as `feature_memory.in_chunks` gives them."""


class FeatureStores:
    """Several stores under one numbering, so that a batch can hold images of several splits and tasks."""

    def __init__(self) -> None:
        self._stores: list[FeatureStore] = []

    def attach(self, store: FeatureStore) -> int:
        """Make a store known; its row r has the number r plus what is returned."""
        self._stores.append(store)
        return (len(self._stores) - 1) << _BITS

    def outputs(self, numbers: Tensor, mapped: int) -> Outputs:
        """The features of images.

        Args:
            numbers: int64 [B].
            mapped: For how many of the images, from the first on, maps are needed beside the pooled feature.

        Returns:
            As `FeatureStore.outputs`, on the device of `numbers`.
        """
        parts: dict[str, list[Tensor]] = {}
        start = 0
        for store, group in groupby(numbers.tolist(), lambda number: number >> _BITS):
            rows = [number - (store << _BITS) for number in group]
            for name, value in self._stores[store].outputs(rows, max(0, min(len(rows), mapped - start))).items():
                parts.setdefault(name, []).append(value.to(numbers.device))
            start += len(rows)
        return {name: _joined(values) for name, values in parts.items()}


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """`torch.cat` into dense memory, also where a dimension of size 1 leaves torch a choice."""
    out = parts[0].new_empty((sum(map(len, parts)), *parts[0].shape[1:]))
    return torch.cat(list(parts), out=out)
