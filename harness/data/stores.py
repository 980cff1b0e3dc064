"""Where a split's images are read from: a folder, by name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.cards import DatasetCard
from harness.data.images import read_image, require_images, walk_images


class ImageStore:
    """A split's images by name, which is a path relative to the card's image folder, with ``/``.

    Args:
        card: The data set.
        split: Name of the split.

    Raises:
        HarnessError: The folder is missing.
    """

    def __init__(self, card: DatasetCard, split: str) -> None:
        self.place: Path = card.require(card.path(split, "images"), "the image folder")
        self._upright = card.exif_orientation == "apply"

    def read(self, name: str) -> NDArray[np.uint8]:
        """Decode one image: uint8 [H, W, 3], RGB. Raises HarnessError naming the file if it cannot be read."""
        return read_image(self.place / name, upright=self._upright)

    def path(self, name: str) -> str:
        """How an error calls the image."""
        return str(self.place / name)

    def names(self) -> list[str]:
        """All images, sorted."""
        return walk_images(self.place)

    def folders(self) -> list[str]:
        """Names of the folders at the top, sorted; hidden ones are left out."""
        if not self.place.is_dir():
            return []
        return sorted(entry.name for entry in self.place.iterdir() if entry.is_dir() and not entry.name.startswith("."))

    def require(self, names: Iterable[str], source: str) -> None:
        """Check that every image is there; `source` is the file that names them. Raises HarnessError if not."""
        require_images(self.place, names, source)
