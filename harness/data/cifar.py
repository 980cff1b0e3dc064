"""CIFAR-10 and CIFAR-100, binary version: files of records of one or two label bytes and 32 x 32 pixels.

The Python version is pickled and can run code, so it is not read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.cards import DatasetCard
from harness.data.labelled import Labelled
from harness.data.name_lists import read_lines
from harness.data.samples import Image
from harness.data.stores import image_files
from harness.errors import HarnessError

SIDE = 32
PIXEL_BYTES = 3 * SIDE * SIDE  # rows of red, then green, then blue
LABEL_BYTES = {10: 1, 100: 2}  # by number of classes; CIFAR-100 has the superclass first


class Cifar(Labelled):
    """CIFAR-10 or CIFAR-100 in the binary version, told apart by whether the names file lists 10 or 100 classes.

    ``images`` is one ``.bin`` file or several: ``data_batch_{1..4}.bin`` or ``data_batch_*.bin``. Ids are
    ``data_batch_1/00000``: the file and the record's number. Pixels are read when they are asked for.

    Source: cs.toronto.edu/~kriz/cifar.html, "Binary version".

    Args:
        card: The data set.
        split: Name of the split.
        limit: Use only the first `limit` images.

    Raises:
        HarnessError: A file is missing, is not a whole number of records, or holds a label that is not a class.
    """

    def __init__(self, card: DatasetCard, split: str, limit: int | None = None) -> None:
        names = card.require(card.path(split, "labels"), "the file of class names")
        classes = [line for _, line in read_lines(names)]
        if len(classes) not in LABEL_BYTES or len(set(classes)) < len(classes):
            raise HarnessError(
                f"{names}: lists {len(set(classes))} different classes, CIFAR has 10 or 100; name batches.meta.txt or "
                "fine_label_names.txt"
            )
        self._label_bytes = LABEL_BYTES[len(classes)]
        self._files = image_files(card, split)
        ids: list[str] = []
        labels: list[NDArray[np.int64]] = []
        for path in self._files:
            found = self._records(path)[:, self._label_bytes - 1].astype(np.int64)
            if len(wrong := np.flatnonzero(found >= len(classes))):
                raise HarnessError(
                    f"{path}: record {wrong[0]}: label {found[wrong[0]]} is not a class (0 to {len(classes) - 1} in "
                    f"{names}); fetch the file again"
                )
            labels.append(found)
            ids += [f"{path.stem}/{number:05d}" for number in range(len(found))]
        self._starts = np.cumsum([0, *map(len, labels)])
        super().__init__(card, split, limit, ids, np.concatenate(labels), classes, self._files)

    def image(self, index: int) -> Image:
        """The image at a place from 0 to N-1: uint8 [32, 32, 3], RGB; a copy."""
        file = int(np.searchsorted(self._starts, index, side="right")) - 1
        record = self._records(self._files[file])[index - self._starts[file]]
        pixels: Image = np.array(record[self._label_bytes :].reshape(3, SIDE, SIDE).transpose(1, 2, 0), order="C")
        return pixels

    def _records(self, path: Path) -> NDArray[np.uint8]:
        """The file as uint8 [records, bytes], mapped into memory; not kept, for a pickled map is the whole file."""
        length = self._label_bytes + PIXEL_BYTES
        try:
            size = path.stat().st_size
            if size == 0 or size % length:
                kinds = [kind for kind, count in LABEL_BYTES.items() if size and size % (count + PIXEL_BYTES) == 0]
                mend = (
                    f"; it holds CIFAR-{kinds[0]}'s, correct the card" if kinds else "; fetch the binary version again"
                )
                raise HarnessError(
                    f"{path}: {size:,} bytes are not a whole number of CIFAR-{100 if self._label_bytes == 2 else 10} "
                    f"records of {length:,} bytes{mend}"
                )
            return np.memmap(path, dtype=np.uint8, mode="r", shape=(size // length, length))
        except (OSError, ValueError) as error:
            raise HarnessError(f"{path}: cannot be read ({error}); fetch the file again") from None
