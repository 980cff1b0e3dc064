"""Some images of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from torch import Tensor

from harness.data.batches import Batch, VqaBatch

One = TypeVar("One", bound=Batch)


def select(batch: One, rows: Sequence[int]) -> One:
    """The images at some rows with what belongs to them, padded as they are.

    Args:
        batch: Of any task.
        rows: In any order.

    Raises:
        ValueError: Questions have rows of their own.
    """
    if isinstance(batch, VqaBatch):
        raise ValueError("questions are not selected by images here; `Batch.rows` does it for a slice")
    kept: dict[str, Any] = {}
    for one in fields(batch):
        value = getattr(batch, one.name)
        if isinstance(value, Tensor):
            kept[one.name] = value[list(rows)]
        elif isinstance(value, tuple) and one.name != "skipped":
            kept[one.name] = tuple(value[row] for row in rows)
    return replace(batch, **kept)
