"""Oxford-IIIT Pet: a folder of images and a list of them with the breed's number."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.cards import DatasetCard
from harness.data.labelled import Labelled
from harness.data.name_lists import read_names
from harness.data.samples import Image
from harness.data.stores import open_images
from harness.errors import HarnessError


class OxfordPets(Labelled):
    """Oxford-IIIT Pet: images named by breed, and lists of lines ``Abyssinian_100 1 1 1``.

    The words are name, breed from 1, species, and number within the species. The breed is the class; its name stands
    before the last ``_``. The classes are those of the training list, so that all splits agree on them.

    Args:
        card: The data set.
        split: Name of the split.
        limit: Use only the first `limit` images, in the list's order.

    Raises:
        HarnessError: A list or image is missing, a line is not of this form, or a number and a name do not always go
            together.
    """

    def __init__(self, card: DatasetCard, split: str, limit: int | None = None) -> None:
        path = _list(card, split)
        self._images = open_images(card, split)
        training = _breeds(_list(card, "train"), {})
        rows = read_names(path, 4)
        _breeds(path, training)
        classes = [training[number] for number in sorted(training)]
        index = {name: label for label, name in enumerate(classes)}
        suffix = card.splits[split].image_suffix  # type: ignore[index]
        ids = [f"{row[0]}{suffix}" for row in rows]
        self._images.require(ids[:limit], str(path))
        labels = np.array([index[_breed(row[0])] for row in rows], dtype=np.int64)
        super().__init__(card, split, limit, ids, labels, classes, (path,))

    def image(self, index: int) -> Image:
        """Decode the image at a place from 0 to N-1."""
        return self._images.read(self.ids[index])


def _list(card: DatasetCard, split: str) -> Path:
    return card.require(card.path(split, "names"), "the list of images")


def _breed(name: str) -> str:
    return name.rpartition("_")[0]


def _breeds(path: Path, known: dict[int, str]) -> dict[int, str]:
    """Breed by number, in a list; where some are `known` already, the list may have no others."""
    found = dict(known)
    number_of = {name: number for number, name in found.items()}
    for name, text, *_ in read_names(path, 4):
        breed = _breed(name)
        number = int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0
        if not breed or number < 1:
            raise HarnessError(f"{path}: '{name} {text}' is not an image named by breed with its number from 1")
        if known and number not in known:
            raise HarnessError(f"{path}: {name}: class {number} is not in the training list; correct one of the lists")
        if found.setdefault(number, breed) != breed or number_of.setdefault(breed, number) != number:
            raise HarnessError(
                f"{path}: {name}: class {number} is {found[number]!r} in another line, and {breed!r} is class "
                f"{number_of.get(breed, number)}; correct the list"
            )
    return found
