"""Folds of images, by a hash of their ids."""

from __future__ import annotations

from collections.abc import Mapping

from harness.data.loading import TaskData
from harness.data.transforms import derive_seed


class Folds:
    """Which fold an image is in. Tasks that take another's images have them in that one's folds.

    Args:
        data: Training splits by dataset name.
        count: Number of folds.
    """

    def __init__(self, data: Mapping[str, TaskData], count: int) -> None:
        self.count = count
        self._names: dict[str, dict[str, str]] = {}
        for task, one in data.items():
            if one.config.images_of is not None:
                self._names[task] = dict(zip(one.names, one.shared_names, strict=True))

    def __call__(self, task: str, image: str) -> int:
        """The fold, from 0 to `count` - 1, of an image of a task."""
        return derive_seed("fold", self._names.get(task, {}).get(image, image)) % self.count
