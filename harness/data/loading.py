"""From adapters to batches: order, collation and loader processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness.data.batches import (
    PADDING,
    RESERVED,
    UNKNOWN,
    Batch,
    ClassificationBatch,
    DetectionBatch,
    SegmentationBatch,
    VqaBatch,
)
from harness.data.config import TaskConfig
from harness.data.samples import (
    Adapter,
    ClassificationSample,
    DetectionSample,
    Sample,
    SegmentationSample,
    VqaSample,
)
from harness.data.transforms import Transform, derive_seed
from harness.data.vqa import tokenize

Place = tuple[int, int]  # epoch (-1 in evaluation), index


class TaskData(Dataset[Any]):
    """One split of one task, transformed: what a loader process holds.

    Args:
        adapter: The data.
        config: The task's image size and augmentation.
        training: Whether to augment and to draw questions.
        seed: The run's seed.
        words: VQA: the question vocabulary.
        max_words: VQA: longer questions are cut.
    """

    def __init__(
        self,
        adapter: Adapter,
        config: TaskConfig,
        training: bool,
        seed: int,
        words: Sequence[str] = (),
        max_words: int = 24,
    ) -> None:
        self.adapter = adapter
        self.config = config
        self.training = training
        self.seed = seed
        self._transform = Transform(config, training)
        self._words = {word: index + RESERVED for index, word in enumerate(words)}
        self._max_words = max_words

    def __len__(self) -> int:
        return len(self.adapter)

    def __getitem__(self, place: Place) -> dict[str, Any]:
        epoch, index = place
        sample: Sample = self.adapter[index]
        key = (self.seed, self.config.dataset, epoch, sample.id)
        item: dict[str, Any] = {"id": sample.id, "size": sample.image.shape[:2]}
        if isinstance(sample, ClassificationSample):
            return item | self._transform(sample.image, key) | {"label": sample.label}
        if isinstance(sample, SegmentationSample):
            return item | self._transform(sample.image, key, mask=sample.mask)
        if isinstance(sample, DetectionSample):
            kept = ~sample.crowd
            out = self._transform(sample.image, key, boxes=sample.boxes[kept])
            # A crop can push a box out; slivers of less than a pixel cannot be learned and make losses infinite.
            wide = (out["boxes"][:, 2:] - out["boxes"][:, :2] >= 1).all(dim=1)
            labels = torch.from_numpy(sample.labels[kept])
            return item | {"image": out["image"], "boxes": out["boxes"][wide], "labels": labels[wide]}
        return item | self._transform(sample.image, key) | self._questions(sample, key)

    def _questions(self, sample: VqaSample, key: tuple[object, ...]) -> dict[str, Any]:
        chosen = np.arange(len(sample.questions))
        if self.training and len(chosen) > self.config.questions:
            draw = np.random.default_rng(derive_seed("questions", *key))
            chosen = np.sort(draw.choice(chosen, self.config.questions, replace=False))
        soft_targets = self.adapter.soft_targets  # type: ignore[attr-defined]
        return {
            "question_ids": sample.question_ids[chosen],
            "words": [self._encode(sample.questions[i]) for i in chosen],
            "targets": [soft_targets(sample.answers[i]) for i in chosen],
        }

    def _encode(self, question: str) -> list[int]:
        words = [self._words.get(word, UNKNOWN) for word in tokenize(question)]
        return words[: self._max_words] or [UNKNOWN]


def collate(items: list[dict[str, Any]]) -> Batch:
    """Stack the samples of one task into a batch."""
    first = items[0]
    common: dict[str, Any] = {
        "ids": tuple(item["id"] for item in items),
        "images": torch.stack([item["image"] for item in items]),
        "sizes": torch.tensor([item["size"] for item in items], dtype=torch.int64),
    }
    if "label" in first:
        return ClassificationBatch(**common, labels=torch.tensor([item["label"] for item in items]))
    if "mask" in first:
        return SegmentationBatch(**common, masks=torch.stack([item["mask"] for item in items]))
    if "boxes" in first:
        return DetectionBatch(
            **common, boxes=tuple(i["boxes"] for i in items), labels=tuple(i["labels"] for i in items)
        )
    counts = torch.tensor([len(item["words"]) for item in items])
    return VqaBatch(
        **common,
        question_ids=torch.from_numpy(np.concatenate([item["question_ids"] for item in items])),
        image_index=torch.repeat_interleave(torch.arange(len(items)), counts),
        words=_pad([words for item in items for words in item["words"]]),
        targets=torch.from_numpy(np.stack([target for item in items for target in item["targets"]])),
    )


def _pad(rows: Sequence[Sequence[int]]) -> Tensor:
    out = torch.full((len(rows), max(len(row) for row in rows)), PADDING, dtype=torch.int64)
    for index, row in enumerate(rows):
        out[index, : len(row)] = torch.tensor(row)
    return out


class TrainingOrder:
    """Batches of places from `start` on, without end: epoch after epoch, each in a random order of its own.

    A function of (seed, dataset, step), so a resumed run continues exactly and two models with the same seed see the
    same samples in the same order. Batches go across epoch borders; data sets of different lengths cycle on their own.

    Args:
        data: The split.
        batch_size: Places per batch.
        start: First step.
    """

    def __init__(self, data: TaskData, batch_size: int, start: int = 0) -> None:
        self._length = len(data)
        self._batch_size = batch_size
        self._start = start
        self._key = (data.seed, data.config.dataset)

    def __iter__(self) -> Iterator[list[Place]]:
        permutation = lru_cache(maxsize=2)(self._permutation)
        position = self._start * self._batch_size
        while True:
            batch = []
            for place in range(position, position + self._batch_size):
                epoch, index = divmod(place, self._length)
                batch.append((epoch, int(permutation(epoch)[index])))
            yield batch
            position += self._batch_size

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng(derive_seed("order", *self._key, epoch)).permutation(self._length)


class EvaluationOrder:
    """Every image once, in canonical order."""

    def __init__(self, length: int, batch_size: int) -> None:
        self._batches = [
            [(-1, index) for index in range(start, min(start + batch_size, length))]
            for start in range(0, length, batch_size)
        ]

    def __iter__(self) -> Iterator[list[Place]]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


def loader(data: TaskData, order: TrainingOrder | EvaluationOrder, workers: int) -> DataLoader[Batch]:
    """A torch loader over `order`. The batches do not depend on the number of worker processes."""
    return DataLoader(
        data,
        batch_sampler=order,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=False,
        pin_memory=torch.cuda.is_available(),
        # Forking a process that runs the threads of a deep-learning library can deadlock.
        multiprocessing_context="forkserver" if workers else None,
        generator=torch.Generator(),  # otherwise the loader draws its base seed from the global stream
    )
