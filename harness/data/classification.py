"""ImageNet's layout: one folder per class."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.cards import DatasetCard
from harness.data.columns import Texts, columns
from harness.data.samples import Adapter, ClassificationSample
from harness.data.stores import ImageStore, open_images
from harness.errors import HarnessError


class ImageFolder(Adapter):
    """Images in class folders; the classes are those of the training split, so that all splits agree on them.

    Args:
        card: The data set.
        split: Name of the split.
        limit: Use only the first `limit` images.

    Raises:
        HarnessError: A folder is missing or empty, or the split has a class that the training split has not.
    """

    task = "classification"

    def __init__(self, card: DatasetCard, split: str, limit: int | None = None) -> None:
        self.card, self.split = card, split
        self._images = open_images(card, split)
        self._classes = _class_folders(card, open_images(card, "train"))
        index = {name: number for number, name in enumerate(self._classes)}
        for name in _class_folders(card, self._images):
            if name not in index:
                raise HarnessError(
                    f"card {card.name}: {self._images.path(name)} is a class that the training split has not; "
                    f"remove the folder or add {card.path('train', 'images') / name}"
                )
        # By class first: a plain sort would put the files of "a-b" between those of "a" and "a/b".
        inside = [name.partition("/") for name in self._images.names()]
        pairs = sorted((name, file) for name, slash, file in inside if slash)
        if not pairs:
            raise HarnessError(
                f"card {card.name}: {self._images.place} has no image in any class folder; {card.how_to_get}"
            )
        names = Texts.of(f"{name}/{file}" for name, file in pairs)
        found = np.array([index[name] for name, _ in pairs], dtype=np.int64)
        key = hashlib.sha256(b"imagefolder" + names.data.tobytes() + names.starts.tobytes() + found.tobytes())
        self._columns = columns(key.hexdigest(), lambda: {"names": names, "labels": found})
        self.ids = self._columns.texts("names")[:limit]

    @property
    def labels(self) -> NDArray[np.int64]:
        """int64 [N], class index of each image."""
        return self._columns["labels"][: len(self.ids)]

    def __getitem__(self, index: int) -> ClassificationSample:
        """Decode one image. Raises HarnessError naming the file if it cannot be read."""
        name = self.ids[index]
        return ClassificationSample(name, self._images.read(name), int(self.labels[index]))

    def ground_truth_files(self) -> Sequence[Path]:
        """None: the folders are the ground truth."""
        return ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the training split's class folders, sorted."""
        return self._classes

    def strata(self) -> NDArray[np.int64]:
        """The classes."""
        return self.labels

    def annotation_hash(self) -> str:
        """SHA-256 over the sorted lines ``id<tab>class`` of the whole split, whatever the limit."""
        pairs = zip(self._columns.texts("names"), self._columns["labels"], strict=True)
        lines = (f"{name}\t{self._classes[label]}" for name, label in pairs)
        return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _class_folders(card: DatasetCard, images: ImageStore) -> tuple[str, ...]:
    names = images.folders()
    if not names:
        raise HarnessError(f"card {card.name}: {images.place} has no class folders; {card.how_to_get}")
    return tuple(names)
