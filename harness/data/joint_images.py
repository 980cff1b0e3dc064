"""Tasks that annotate the same images: one is fed the images of another, so that the network sees each of them once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.batches import Batch
from harness.errors import HarnessError

_NUMBER = re.compile(r"\d+")


def matching_rows(leader: Sequence[str], follower: Sequence[str], names: tuple[str, str]) -> NDArray[np.int64]:
    """Where the images of one data set are in another.

    Layouts name the same photograph differently (``391895``, ``COCO_train2014_000000391895``), so that ids are compared
    as they are or, where that does not match all, by the last number in them.

    Args:
        leader: N image ids.
        follower: Image ids of the other data set, which may have more images.
        names: What the two are called, for the error.

    Returns:
        int64 [N], rows of `follower`.

    Raises:
        HarnessError: An image is missing, or ids do not tell which one it is.
    """
    found: dict[str, int] = {}
    missing = ""
    for name in (str, _last_number):
        found = {name(one): row for row, one in enumerate(follower)}
        keys = [name(one) for one in leader]
        missing = next((one for one, key in zip(leader, keys, strict=True) if key not in found), "")
        if not missing and len(found) == len(follower) and len(set(keys)) == len(keys):
            return np.array([found[key] for key in keys], dtype=np.int64)
    what = f"has no image of the id {missing!r}" if missing else "has several images whose ids end in the same number"
    raise HarnessError(
        f"tasks: {names[1]}: images_of: it cannot take the images of {names[0]}, for it {what}; ids must be equal, or"
        " equal in their last number; without images_of each task is fed images of its own"
    )


def share_images(batches: Mapping[str, Batch], leaders: Mapping[str, str]) -> dict[str, Batch]:
    """Let tasks hold the very images of the tasks that they follow, instead of equal copies.

    Architectures tell by this that an image need not be encoded twice (`same_images`).

    Args:
        batches: By task.
        leaders: Whom the tasks follow that follow one.

    Raises:
        HarnessError: The pictures differ.
    """
    found = dict(batches)
    for name, leader in leaders.items():
        if name not in batches or leader not in batches:
            continue
        own, others = batches[name], batches[leader]
        if own.remembered is not None or others.remembered is not None:
            continue
        if own.images.shape != others.images.shape or not torch.equal(own.images, others.images):
            rows = zip(own.ids, others.ids, own.images, others.images, strict=True)
            one, other = next((a, b) for a, b, x, y in rows if x.shape != y.shape or not torch.equal(x, y))
            raise HarnessError(
                f"tasks: {name}: images_of: its image {one!r} is another picture than image {other!r} of {leader};"
                " the files of both must hold the same pixels; without images_of each task is fed images of its own"
            )
        found[name] = replace(own, images=others.images)
    return found


def same_images(one: Batch, other: Batch) -> bool:
    """Whether two batches hold the very same images, and not just equal ones.

    While a program is compiled, parts of a step's images (accumulation, several processes) pass for different ones.
    """
    a, b = one.images, other.images
    if one.remembered is not None or other.remembered is not None:
        return False
    if a is b or torch.compiler.is_compiling():  # addresses are nothing that a compiled program can compare
        return a is b
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride()


def _last_number(name: str) -> str:
    numbers = _NUMBER.findall(name)
    return numbers[-1].lstrip("0") if numbers else name
