"""ReaL: several acceptable classes per validation image of ImageNet, for a second accuracy beside top-1.

Source: Beyer et al. 2020, "Are we done with ImageNet?", arXiv:2006.07159, and the code beside the labels at
github.com/google-research/reassessed-imagenet.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

import orjson

from harness.cards import DatasetCard
from harness.errors import HarnessError

VALIDATION_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
_MAX_BYTES = 64 << 20  # the official file has about one


def real_labels(card: DatasetCard, split: str, ids: Sequence[str], classes: int) -> list[list[int]] | None:
    """The ReaL label sets of validation images.

    Args:
        card: The data set.
        split: Name of the split.
        ids: The images; the number in ``ILSVRC2012_val_<number>.JPEG`` tells which set is theirs.
        classes: Number of classes; a set holds indices into the sorted wnids.

    Returns:
        One list of class indices per image, empty where no class was found acceptable. None if the card names no
        ``real`` file for the split or the file is not there: it is a download of its own.

    Raises:
        HarnessError: The file is not valid, or is not that of this split.
    """
    entry = card.splits[split]  # type: ignore[index]
    if entry.real is None or not (path := card.path(split, "real")).exists():
        return None
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise HarnessError(f"{path}: is larger than {_MAX_BYTES >> 20} MiB; is this the right file?")
        sets = orjson.loads(path.read_bytes())
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({error.strerror}); fetch the file again") from None
    except orjson.JSONDecodeError as error:
        raise HarnessError(f"{path}: is not valid JSON ({error.msg}, line {error.lineno}); fetch it again") from None
    if not isinstance(sets, list):
        raise HarnessError(f"{path}: a list with one list of class indices per image is required; fetch it again")
    for number, one in enumerate(sets):
        if not isinstance(one, list) or not all(type(label) is int and 0 <= label < classes for label in one):
            raise HarnessError(f"{path}: [{number}]: {str(one)[:60]} is not a list of class indices 0 to {classes - 1}")
    if entry.size is not None and len(sets) != entry.size:
        raise HarnessError(
            f"{path}: holds {len(sets):,} label sets, but split {split} has {entry.size:,} images; fetch it again"
        )
    found = []
    for name in ids:
        match = VALIDATION_NAME.fullmatch(PurePosixPath(name).name)
        number = int(match[1]) if match else 0
        if not 1 <= number <= len(sets):
            raise HarnessError(
                f"{path}: has no label set for image {name!r}; it holds those of ILSVRC2012_val_00000001.JPEG to "
                f"ILSVRC2012_val_{len(sets):08d}.JPEG"
            )
        found.append(sets[number - 1])
    return found
