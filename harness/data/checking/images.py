"""All images and label maps of one split: are they readable, and as the annotations and the card say?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from harness.cards import DatasetCard
from harness.data.checking.files import Facts, Job
from harness.data.checking.findings import Findings
from harness.data.checking.journal import Journal
from harness.data.checking.plans import SplitPlan
from harness.data.checking.reading import Reader
from harness.progress import Reporter


@dataclass(frozen=True)
class Contents:
    """What the images of one split hold.

    Attributes:
        digests: uint8 [N, 32], SHA-256 of each image in the plan's order; zeros where it could not be decoded.
        read: How many files were read.
        reused: How many files had not changed since they were read before.
    """

    digests: NDArray[np.uint8]
    read: int
    reused: int


class _Jobs(Sequence[Job]):
    """The images of a plan, then its label maps; made on demand, because there may be more than a million."""

    def __init__(self, plan: SplitPlan) -> None:
        self._plan = plan
        self.masks = [row for row, mask in enumerate(plan.labels or ()) if mask is not None]

    def __len__(self) -> int:
        return len(self._plan.names) + len(self.masks)

    @overload
    def __getitem__(self, index: int) -> Job: ...
    @overload
    def __getitem__(self, index: slice) -> list[Job]: ...
    def __getitem__(self, index: int | slice) -> Job | list[Job]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        count = len(self._plan.names)
        if index < count:
            assert self._plan.images is not None
            return self._plan.images.job(self._plan.names[index])
        mask = (self._plan.labels or [])[self.masks[index - count]]
        assert mask is not None
        return Job(mask, "label")


def check_images(
    card: DatasetCard,
    split: str,
    plan: SplitPlan,
    found: Findings,
    journal: Journal,
    reader: Reader,
    reporter: Reporter,
) -> Contents:
    """Read every image and label map of a split that has changed since it was read before, and judge them all."""
    if plan.digests is not None:
        return Contents(plan.digests, 0, 0)  # the layout has read them
    jobs = _Jobs(plan)
    judge = _Judge(card, split, plan, found, jobs)
    unknown: list[int] = []
    for index in range(len(jobs)):
        facts = journal.look_up(jobs[index])
        if facts is None:
            unknown.append(index)
        else:
            judge.see(index, facts)
    known = len(jobs) - len(unknown)
    if unknown:
        with reporter.bar(f"{card.name} {split} images", len(jobs), known) as bar:
            for chunk in reader.read(jobs, unknown):
                journal.append((jobs[index], facts) for index, facts in chunk)
                for index, facts in chunk:
                    judge.see(index, facts)
                bar.advance(len(chunk))
    judge.compare_masks()
    return Contents(judge.digests, len(unknown), known)


class _Judge:
    """Turns facts about files into findings, in whatever order they come."""

    def __init__(self, card: DatasetCard, split: str, plan: SplitPlan, found: Findings, jobs: _Jobs) -> None:
        self._card, self._split, self._plan, self._found, self._jobs = card, split, plan, found, jobs
        count = len(plan.names)
        self.digests = np.zeros((count, 32), dtype=np.uint8)
        self._sizes = np.zeros((count, 2), dtype=np.int32)  # of the images as they are loaded
        self._mask_sizes = np.zeros((count, 2), dtype=np.int32) if plan.labels is not None else None
        self._known_ids = frozenset(entry.id for entry in card.classes)
        self._evaluated_ids = frozenset(entry.id for entry in card.classes if entry.evaluated)

    def see(self, index: int, facts: Facts) -> None:
        """Judge one file of the jobs."""
        if index < len(self._plan.names):
            self._image(index, facts)
            return
        row = self._jobs.masks[index - len(self._plan.names)]
        mask = (self._plan.labels or [])[row]
        assert mask is not None
        self._mask(row, mask, facts)

    def _add(self, code: str, row: int, path: Path | None, message: str) -> None:
        self._found.add(code, self._split, path or self._plan.file(row), self._plan.ids[row], message)

    def _image(self, row: int, facts: Facts) -> None:
        if facts.problem:
            code = "image-truncated" if facts.problem == "truncated" else "image-unreadable"
            self._add(code, row, None, f"cannot be decoded ({facts.detail}); fetch the file again")
            return
        self.digests[row] = np.frombuffer(bytes.fromhex(facts.digest), dtype=np.uint8)
        stored = (facts.width, facts.height)
        turned = stored[::-1] if facts.orientation >= 5 else stored
        apply = self._card.exif_orientation == "apply"
        size = turned if apply else stored
        self._sizes[row] = size
        if facts.orientation != 1 and not apply:
            message = f"its EXIF orientation is {facts.orientation} and it is used as stored, as the official tools do"
            self._add("exif-ignored", row, None, f"{message}; to turn it, set exif_orientation: apply in the card")
        stated = (0, 0) if self._plan.sizes is None else tuple(self._plan.sizes[row].tolist())
        if stated not in ((0, 0), size):
            other = "ignore" if apply else "apply"
            mend = "fetch the image again"
            if stated == (stored if apply else turned):
                mend = f"its EXIF orientation is {facts.orientation}, so set exif_orientation: {other} in the card"
            message = f"has {_text(size)} pixels, and its annotation states {_text(stated)}"
            self._add("size-mismatch", row, None, f"{message}; {mend}")

    def _mask(self, row: int, path: Path, facts: Facts) -> None:
        if facts.problem:
            code = "image-truncated" if facts.problem == "truncated" else "mask-unreadable"
            self._add(code, row, path, f"the label map cannot be used ({facts.detail}); fetch the file again")
            return
        assert self._mask_sizes is not None
        self._mask_sizes[row] = facts.width, facts.height
        ids = frozenset(facts.ids)
        if unknown := sorted(ids - self._known_ids):
            message = f"holds {_ids(unknown)}, not among the card's classes; list them there or correct the label map"
            self._add("mask-unknown-id", row, path, message)
        if not ids & self._evaluated_ids:
            self._add("mask-empty", row, path, f"holds nothing but ignored pixels ({_ids(sorted(ids))}); correct it")

    def compare_masks(self) -> None:
        """Compare the sizes of images and label maps, when all have been seen."""
        if self._mask_sizes is None:
            return
        differ = (self._sizes != self._mask_sizes).any(axis=1)
        both = (self._sizes > 0).all(axis=1) & (self._mask_sizes > 0).all(axis=1)
        for row in np.flatnonzero(differ & both):
            mask = (self._plan.labels or [])[row]
            assert mask is not None
            message = f"has {_text(self._mask_sizes[row])} pixels, and its image has {_text(self._sizes[row])}"
            self._add("mask-size", int(row), mask, f"{message}; fetch both again")


def _text(size: Sequence[int] | NDArray[np.int32]) -> str:
    return f"{size[0]} x {size[1]}"


def _ids(ids: Sequence[int]) -> str:
    shown = ", ".join(map(str, ids[:8]))
    return f"id{'s' if len(ids) > 1 else ''} {shown}{', ...' if len(ids) > 8 else ''}"
