"""ImageNet as it is distributed: training images in class folders, validation images flat with the development kit."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from harness.cards import DatasetCard
from harness.data.classification import ImageFolder
from harness.data.labelled import Labelled
from harness.data.name_lists import read_lines
from harness.data.real_labels import VALIDATION_NAME
from harness.data.samples import Image
from harness.data.stores import ImageStore, open_images
from harness.errors import HarnessError

_WNID = re.compile(r"n\d{8}")
_MAX_MAT_BYTES = 64 << 20  # the official file has less than one


class ImageNetDevkit(Labelled):
    """ImageNet as distributed: class folders by wnid, or a flat folder with the development kit's ground truth.

    A split without ``labels`` has class folders. One with ``labels``, ``ILSVRC2012_validation_ground_truth.txt``, has
    ``ILSVRC2012_val_00000001.JPEG`` and so on in one folder; its classes are the training split's folders, so that a
    class has the same index in both.

    Args:
        card: The data set.
        split: Name of the split.
        limit: Use only the first `limit` images.

    Raises:
        HarnessError: A file is missing or not valid, images and lines of the ground truth differ in number, or a line
            names a class that the training split has not.
    """

    def __init__(self, card: DatasetCard, split: str, limit: int | None = None) -> None:
        entry = card.splits[split]  # type: ignore[index]
        if entry.labels is not None and entry.synsets is None:
            raise HarnessError(f"card {card.name}: splits.{split}.synsets: the ground truth needs the kit's meta.mat")
        self._images = open_images(card, split)
        if entry.labels is None:
            folders = ImageFolder(card, split)
            super().__init__(card, split, limit, folders.ids, folders.labels, folders.classes, ())
            return
        truth = card.require(card.path(split, "labels"), "the validation ground truth")
        synsets = card.require(card.path(split, "synsets"), "the file of synsets")
        train = open_images(card, "train")
        classes = sorted(train.folders())
        labels = _read_truth(truth, synsets, classes, str(train.place))
        names = _validation_names(self._images, truth, len(labels))
        super().__init__(card, split, limit, names, labels, classes, (truth, synsets))

    def image(self, index: int) -> Image:
        """Decode the image at a place from 0 to N-1."""
        return self._images.read(self.ids[index])


def _read_truth(truth: Path, synsets: Path, classes: list[str], folders: str) -> NDArray[np.int64]:
    """The class index of each line."""
    index = {wnid: number for number, wnid in enumerate(classes)}
    wnid_of_id = read_synsets(synsets)
    labels = []
    for number, line in read_lines(truth):
        wnid = wnid_of_id.get(int(line)) if line.isascii() and line.isdecimal() and len(line) < 10 else None
        if wnid is None:
            raise HarnessError(
                f"{truth}: line {number}: {line[:60]!r} is not the ILSVRC2012_ID of one of the {len(wnid_of_id):,} "
                f"classes of {synsets}; fetch the development kit again"
            )
        if wnid not in index:
            raise HarnessError(
                f"{truth}: line {number}: class {wnid} has no folder in {folders}; complete the training split"
            )
        labels.append(index[wnid])
    return np.array(labels, dtype=np.int64)


def _validation_names(images: ImageStore, truth: Path, lines: int) -> list[str]:
    """The images' names, of which the n-th has number n."""
    names = images.names()
    for name in names:
        if not VALIDATION_NAME.fullmatch(name):
            raise HarnessError(
                f"{images.path(name)}: is not named ILSVRC2012_val_<8 digits>.JPEG; where the images lie in class "
                "folders, leave 'labels' out of the split"
            )
    if len(names) != lines:
        raise HarnessError(
            f"{images.place}: holds {len(names):,} images, but {truth} has {lines:,} lines; complete the data set"
        )
    for number, name in enumerate(names, 1):  # sorted, of equal length
        if name != f"ILSVRC2012_val_{number:08d}.JPEG":
            raise HarnessError(f"{images.path(name)}: number {number} is missing before it; complete the data set")
    return names


def read_synsets(path: Path) -> dict[int, str]:
    """Read the classes of the development kit's ``meta.mat``.

    The file lists inner nodes of the hierarchy too; a class is a synset without children.

    Args:
        path: MATLAB 5 file with a struct array ``synsets`` (fields ``ILSVRC2012_ID, WNID, num_children``).

    Returns:
        Wnid by ILSVRC2012_ID.

    Raises:
        HarnessError: The file cannot be read, is too large, or its content is not of this form.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_MAT_BYTES + 1)
        _refuse_bombs(raw)
        synsets: Any = loadmat(io.BytesIO(raw), squeeze_me=True, variable_names=["synsets"])["synsets"]
        fields = [np.atleast_1d(synsets[name]) for name in ("ILSVRC2012_ID", "WNID", "num_children")]
        leaves = [(int(n), str(wnid)) for n, wnid, children in zip(*fields, strict=True) if int(children) == 0]
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({error.strerror or error}); complete the data set") from None
    except Exception as error:  # the reader raises nearly every kind of exception on broken bytes
        problem = (str(error).splitlines() or [type(error).__name__])[0]
        raise HarnessError(
            f"{path}: is not the development kit's meta.mat ({problem[:100]}); fetch the kit again"
        ) from None
    wnids = dict(leaves)
    if not leaves or len(wnids) < len(leaves) or len(set(wnids.values())) < len(leaves):
        raise HarnessError(f"{path}: synsets: an ILSVRC2012_ID or WNID is missing or twice; fetch the kit again")
    for number, wnid in wnids.items():
        if not 1 <= number <= len(leaves) or not _WNID.fullmatch(wnid):
            raise HarnessError(
                f"{path}: synsets: {wnid[:60]!r} with ILSVRC2012_ID {number} is not one of {len(leaves):,} classes "
                "numbered from 1; fetch the kit again"
            )
    return wnids


def _refuse_bombs(raw: bytes) -> None:
    """Raise ValueError if a MATLAB 5 file is too large or unpacks to too much.

    Source: "MAT-File Format", MathWorks: a header of 128 bytes, then elements of type (uint32), size (uint32) and data;
    type 15 is a zlib stream.
    """
    if len(raw) > _MAX_MAT_BYTES:
        raise ValueError(f"larger than {_MAX_MAT_BYTES >> 20} MiB")
    order = ">" if raw[126:128] == b"MI" else "<"
    place, budget = 128, _MAX_MAT_BYTES
    while place + 8 <= len(raw):
        kind, size = struct.unpack_from(f"{order}II", raw, place)
        if kind == 15:
            stream = zlib.decompressobj()
            budget -= len(stream.decompress(raw[place + 8 : place + 8 + size], budget))
            if stream.unconsumed_tail or budget <= 0:
                raise ValueError(f"unpacks to more than {_MAX_MAT_BYTES >> 20} MiB")
        place += 8 + size
