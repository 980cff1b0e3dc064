"""Training images without their labels: what placeholder samples are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.loading import Place, TaskData


class UnlabelledData(TaskData):
    """Images of a task's training split, fed as in training. No label of theirs is read, and batches have none.

    Batches are plain `Batch`es; those of VQA keep their questions, with answers of none (``targets`` float [Q, 0]).
    Order and augmentation are random streams of their own: the labelled images are fed as they would be without.

    Args:
        labelled: The task's training data, on the same split.
        rows: int64 [N], which images of the split are taken.
    """

    def __init__(self, labelled: TaskData, rows: NDArray[np.int64]) -> None:
        vars(self).update(vars(labelled))  # fed alike
        self.rows = rows
        self._features = None
        self._whole_batches = False  # a batch that is read as a whole comes with labels

    @property
    def stream(self) -> tuple[object, ...]:
        """What order and augmentation are functions of; another one than that of the labelled images."""
        return (self.seed, "placeholder samples", self.config.dataset)

    def __getitem__(self, place: Place) -> dict[str, Any]:
        epoch, index = place
        assert self.rows is not None
        row = int(self.rows[index])
        if self._cache is None:
            image = self.adapter.image(row)
            size = image.shape[:2]
        else:
            image = np.array(self._cache.images[row]).transpose(1, 2, 0)
            size = tuple(self._cache.sizes[row].tolist())
        name = self.adapter.ids[row]
        key = self._key(epoch, index, name)
        item = {"id": name, "size": size, **self._canvas(), **self._transform(image, key)}
        if self.adapter.task == "vqa":
            item |= self._questions(self.adapter.unseen(row), key)  # type: ignore[attr-defined]
        return item

    def _target(self, answers: Sequence[str]) -> NDArray[np.float32]:
        return np.zeros(0, dtype=np.float32)
