"""Images that are there more than once: within a split, in two splits, and in two tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from harness.cards import DatasetCard
from harness.data.checking.findings import Findings
from harness.data.checking.images import Contents
from harness.data.checking.plans import SplitPlan

# Where the same id means the same image in every split. Elsewhere ids are file names, which may repeat by chance.
_IDS_MEAN_IMAGES = ("coco", "vqa", "cityscapes")
_NUMBERED = ("coco", "vqa")  # COCO and VQA v2 number the same photographs alike

Split = tuple[SplitPlan, Contents]


def check_duplicates(card: DatasetCard, splits: Mapping[str, Split], found: Findings) -> None:
    """Images with equal files within each split, and in two splits of one data set."""
    for name, (plan, contents) in splits.items():
        for row, first in _repeated(contents.digests):
            message = f"the same file as {plan.ids[first]}; keep one of them"
            found.add("duplicate-image", name, plan.file(row), plan.ids[row], message)
    names = list(splits)
    for number, name in enumerate(names):
        for earlier in names[:number]:
            _check_pair(card, earlier, splits[earlier], name, splits[name], found)


def check_between(
    trained: DatasetCard, training: Split, evaluated: DatasetCard, evaluation: Split, found: Findings
) -> None:
    """Images that one data set trains on and another is evaluated on.

    Args:
        trained: The data set that is trained on.
        training: Its training split.
        evaluated: The data set that is evaluated.
        evaluation: Its evaluation split.
        found: The findings of `evaluated`.
    """
    plan, source = evaluation[0], training[0]
    split = evaluated.evaluation_split
    same = dict(_common(evaluation[1].digests, training[1].digests))
    for row, other in same.items():
        message = f"the same file as training image {source.ids[other]} of {trained.name}"
        mend = f"leave it out of one of them, or do not train {trained.name} together with {evaluated.name}"
        found.add("shared-image", split, plan.file(row), plan.ids[row], f"{message}; {mend}")
    if trained.adapter in _NUMBERED and evaluated.adapter in _NUMBERED:
        for row, other in _common_ids(plan, source):
            if row not in same:
                message = f"training image {source.file(other)} of {trained.name} has the same number and other content"
                mend = "nothing is to be done unless one is a re-encoded copy of the other"
                found.add("same-number", split, plan.file(row), plan.ids[row], f"{message}; {mend}")


def _check_pair(card: DatasetCard, earlier: str, first: Split, later: str, second: Split, found: Findings) -> None:
    plan, source = second[0], first[0]
    same = dict(_common(second[1].digests, first[1].digests))
    for row, other in same.items():
        message = f"the same file as {source.ids[other]} of split {earlier}; remove it from one of them"
        found.add("shared-image", later, plan.file(row), plan.ids[row], message)
    if card.adapter in _IDS_MEAN_IMAGES:
        for row, other in _common_ids(plan, source):
            if row not in same:
                message = f"split {earlier} has an image of the same id ({source.file(other)}); correct one of them"
                found.add("shared-image", later, plan.file(row), plan.ids[row], message)


def _common_ids(plan: SplitPlan, source: SplitPlan) -> Iterator[tuple[int, int]]:
    places = {item: row for row, item in enumerate(source.ids)}
    for row, item in enumerate(plan.ids):
        if item in places:
            yield row, places[item]


def _repeated(digests: NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
    """Rows whose digest an earlier row has, with that row."""
    keys, rows = _keys(digests)
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    origin = first[group.ravel()]
    for place in np.flatnonzero(origin != np.arange(len(keys))):
        yield int(rows[place]), int(rows[origin[place]])


def _common(digests: NDArray[np.uint8], others: NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
    """Rows of `digests` that are in `others`, with the first such row there."""
    keys, rows = _keys(digests)
    other_keys, other_rows = _keys(others)
    distinct, first = np.unique(other_keys, return_index=True)
    if not len(distinct):
        return
    places = np.minimum(np.searchsorted(distinct, keys), len(distinct) - 1)
    for place in np.flatnonzero(distinct[places] == keys):
        yield int(rows[place]), int(other_rows[first[places[place]]])


def _keys(digests: NDArray[np.uint8]) -> tuple[NDArray[np.bytes_], NDArray[np.intp]]:
    """The first half of each digest that is known, as one comparable value, and its row.

    Half of a SHA-256 is more than enough to tell a million images apart.
    """
    rows = np.flatnonzero(digests.any(axis=1))
    halves = np.ascontiguousarray(digests[rows, :16])
    return halves.view("S16").ravel(), rows
