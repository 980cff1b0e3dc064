"""The typed sample of each task, and what every adapter provides. No torch here: scoring needs none."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from harness.cards import DatasetCard, Task

Image = NDArray[np.uint8]  # [H, W, 3], RGB


@dataclass(frozen=True)
class ClassificationSample:
    """One image and its class.

    Attributes:
        id: Path relative to the split's image folder, with ``/``.
        image: uint8 [H, W, 3], RGB.
        label: Class index, 0 to C-1, in sorted order of the class folders.
    """

    id: str
    image: Image
    label: int


@dataclass(frozen=True)
class DetectionSample:
    """One image and its boxes.

    Attributes:
        id: COCO image id, as text.
        image: uint8 [H, W, 3], RGB.
        boxes: float32 [N, 4], xyxy in pixels of the original image.
        labels: int64 [N], index into the card's sorted category ids, 0 to C-1 (not the sparse COCO id).
        crowd: bool [N], crowd regions: evaluated specially, never trained on.
    """

    id: str
    image: Image
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]


@dataclass(frozen=True)
class SegmentationSample:
    """One image and its label map.

    Attributes:
        id: ``city_seq_frame``.
        image: uint8 [H, W, 3], RGB.
        mask: uint8 [H, W], train ids 0 to C-1 (order of the card's evaluated classes), 255 = ignore.
    """

    id: str
    image: Image
    mask: NDArray[np.uint8]


@dataclass(frozen=True)
class VqaSample:
    """One image and all its questions.

    Attributes:
        id: COCO image id, as text.
        image: uint8 [H, W, 3], RGB.
        question_ids: int64 [Q].
        questions: The Q question texts.
        answers: For each question the ten human answers.
    """

    id: str
    image: Image
    question_ids: NDArray[np.int64]
    questions: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...]


Sample = ClassificationSample | DetectionSample | SegmentationSample | VqaSample

_TRUTH: dict[Task, tuple[str, ...]] = {
    "classification": (),  # the adapter's `labels`
    "detection": ("annotations",),
    "segmentation": ("labels",),
    "vqa": ("questions", "annotations"),
}


class Adapter(ABC):
    """One split of a data set, read from its official layout.

    Args:
        card: The data set.
        split: ``train``, ``val`` or ``test``, as far as the card has it.
        limit: Use only the first `limit` images in canonical order.

    Raises:
        HarnessError: A file is missing or not valid; the message names it and the mend.
    """

    task: ClassVar[Task]

    card: DatasetCard
    split: str
    ids: Sequence[str]  # one per image, in canonical order; limited when `limit` is given

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def __getitem__(self, index: int) -> Any:
        """Decode one sample. Raises HarnessError naming the file if the image cannot be read."""

    def image(self, index: int) -> Image:
        """Decode the image at a place from 0 to N-1, uint8 [H, W, 3], and nothing that is annotated of it."""
        found: Image = self[index].image
        return found

    def strata(self) -> NDArray[np.int64]:
        """int64 [N]: groups of images, of each of which a label fraction takes its share."""
        return np.zeros(len(self), dtype=np.int64)

    @property
    def examples(self) -> int:
        """What the card's ``size`` counts: images, or the questions of the whole split."""
        return len(self)

    @abstractmethod
    def ground_truth_files(self) -> Sequence[Path]:
        """The files that hold the ground truth of this split."""

    def truth(self) -> tuple[Any, ...]:
        """What the task's evaluator takes as ground truth: the card's official files or folder, where these will do."""
        return tuple(self.card.path(self.split, field) for field in _TRUTH[self.task])

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names of the C classes (VQA: of the answers of the training vocabulary), in index order."""

    def annotation_hash(self) -> str:
        """SHA-256 over the ground truth's content (of the image list and labels where folders are the labels)."""
        digest = hashlib.sha256()
        for path in self.ground_truth_files():
            digest.update(path.name.encode() + b"\0")
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def image_list_hash(self) -> str:
        """SHA-256 over the ids that are scored, in canonical order."""
        return hashlib.sha256("\n".join(self.ids).encode()).hexdigest()
