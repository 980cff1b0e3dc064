"""From adapters to batches: what a loader process does, and in which order."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from harness.data.batches import RESERVED, UNKNOWN, Batch, ClassificationBatch
from harness.data.collation import MULTIPLE, collate
from harness.data.config import TaskConfig
from harness.data.corruptions.apply import Corruption
from harness.data.feature_rows import FeatureRows
from harness.data.image_cache import ImageCache
from harness.data.joint_images import matching_rows
from harness.data.samples import (
    Adapter,
    ClassificationSample,
    DetectionSample,
    Sample,
    SegmentationSample,
    VqaSample,
)
from harness.data.subsets import subset
from harness.data.transforms import Transform, derive_seed
from harness.data.vqa import tokenize
from harness.data.workers import end_with_parent, start_fork_server
from harness.errors import HarnessError

Place = tuple[int, int]  # epoch (-1 in evaluation), index
MAX_SKIPPED = 100  # in a row, before it must be said that the data set is broken


class TaskData(Dataset[Any]):
    """One split of one task, transformed: what a loader process holds.

    Args:
        adapter: The data.
        config: The task's image size, augmentation and label fraction.
        training: Whether to augment, to draw questions, and to take the fraction.
        seed: The run's seed.
        words: VQA: the question vocabulary.
        max_words: VQA: longer questions are cut.
        cache: Samples to take instead of the adapter's.
        on_bad_image: In training: stop at an image that cannot be read, or take the next one and say so.
        held_out: Take what the fraction leaves over instead, which is not trained on.
        leader: The data whose images this one takes in training; see `TaskConfig.images_of`.
        followed: Whether others take this one's images.

    Attributes:
        rows: int64 [N], which images of the adapter are taken, ascending; None for all.
    """

    def __init__(
        self,
        adapter: Adapter,
        config: TaskConfig,
        training: bool,
        seed: int,
        words: Sequence[str] = (),
        max_words: int = 24,
        cache: ImageCache | None = None,
        on_bad_image: Literal["stop", "skip"] = "stop",
        held_out: bool = False,
        leader: Adapter | None = None,
        followed: bool = False,
    ) -> None:
        self.adapter = adapter
        self.config = config
        self.training = training
        self.seed = seed
        self._transform = Transform(config, training, alone=leader is None and not followed)
        self._words = {word: index + RESERVED for index, word in enumerate(words)}
        self._max_words = max_words
        self._cache = cache
        self._skip = training and on_bad_image == "skip"
        self.rows: NDArray[np.int64] | None = None
        if (training and config.fraction < 1) or held_out:
            taken = subset(adapter, config.fraction, config.fraction_draw)
            self.rows = np.setdiff1d(np.arange(len(adapter)), taken) if held_out else taken
        if leader is not None:
            self.rows = matching_rows(leader.ids, adapter.ids, (leader.card.name, adapter.card.name))
        self._leader = leader
        only_flips = config.crop == 1 and config.augment == "none" and config.cache == config.image_size
        self._whole_batches = cache is not None and adapter.task == "classification" and only_flips
        self._features: FeatureRows | None = None
        self._first = 0
        self._corruption: Corruption | None = None

    @property
    def steady(self) -> bool:
        """Whether an image gives the same pixels in every epoch, of one size, and every image can be had.

        Corrupted images are not what is kept under their names, so they do not count as such.
        """
        if self._corruption is not None:
            return False
        return not self._transform.random and self.config.resize in ("stretch", "crop") and not self._skip

    @property
    def names(self) -> list[str]:
        """Ids of the images, in the order of their places."""
        rows = range(len(self)) if self.rows is None else self.rows.tolist()
        return [self.adapter.ids[row] for row in rows]

    @property
    def shared_names(self) -> list[str]:
        """As `names`, but who takes another's images calls them as that one does."""
        return self.names if self._leader is None else list(self._leader.ids)

    def still(self) -> TaskData:
        """The same images without augmentation, all questions asked."""
        other = copy.copy(self)
        other.training = False
        other._transform = Transform(self.config, training=False)
        return other

    def corrupted(self, corruption: Corruption) -> TaskData:
        """The same images without augmentation, each corrupted as it is decoded.

        Neither the image cache nor kept features are read, for both are of clean images.
        """
        other = self.still()
        other._corruption, other._features, other._whole_batches = corruption, None, False
        return other

    def picked(self, count: int) -> TaskData:
        """Some of the images without augmentation, chosen by the run's seed; all of them where there are no more."""
        other = self.still()
        places = np.random.default_rng(derive_seed("picked", *self.stream)).permutation(len(self))[:count]
        other.rows = np.sort(places) if self.rows is None else self.rows[np.sort(places)]
        other._leader = None
        return other

    def remembering(self, features: FeatureRows, first: int) -> TaskData:
        """The same with images replaced by where their features lie, so that none is decoded.

        Args:
            features: A row for every place.
            first: What a batch calls row 0.
        """
        other = copy.copy(self)
        other._features, other._first = features, first
        return other

    def __len__(self) -> int:
        return len(self.adapter) if self.rows is None else len(self.rows)

    def batch(self, places: Sequence[Place]) -> Batch:
        """Load and stack the samples at some places.

        Raises:
            HarnessError: An image cannot be read.
        """
        if self._features is not None:
            batch = collate([self[place] for place in places])
            blank = torch.zeros((), dtype=torch.uint8).expand(len(places), 3, *self.config.image_size)
            return replace(batch, images=blank, remembered=torch.tensor([self._first + row for _, row in places]))
        if self._whole_batches:
            return self._cached(places)
        items, skipped = [], []
        for epoch, index in places:
            for attempt in range(MAX_SKIPPED):
                try:
                    items.append(self[epoch, (index + attempt) % len(self)])
                    break
                except HarnessError as error:
                    if not self._skip:
                        raise
                    skipped.append(str(error))
            else:
                raise HarnessError(f"{skipped[-1]} (and {MAX_SKIPPED - 1} images before it)")
        return collate(items, skipped)

    def __getitem__(self, place: Place) -> dict[str, Any]:
        epoch, index = place
        row = index if self.rows is None else int(self.rows[index])
        if self._features is not None:
            return self._unseen(epoch, row, index, self._features)
        sample = self._sample(row)
        size = sample.image.shape[:2] if self._cache is None else tuple(self._cache.sizes[row].tolist())
        key = self._key(epoch, index, sample.id)
        item: dict[str, Any] = {"id": sample.id, "size": size}
        item |= self._canvas()
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

    def _sample(self, row: int) -> Sample:
        if self._corruption is not None:
            return self._corruption.sample(self.adapter, row, self.config.cache, self.config.interpolation)
        sample: Sample = self._cache.sample(row, self.adapter) if self._cache is not None else self.adapter[row]
        return sample

    def _canvas(self) -> dict[str, Any]:
        """What the images of a batch are padded to at least, where they may differ in size."""
        if self.config.resize == "native" and self.training:
            return {"canvas": self.config.image_size}  # the size of a batch of crops, even where images are smaller
        if self.config.resize in ("fit", "native") and not self.config.sliding_window:
            return {"canvas": (MULTIPLE, MULTIPLE)}
        return {}

    def _unseen(self, epoch: int, row: int, index: int, features: FeatureRows) -> dict[str, Any]:
        """An item without its image."""
        item = {"id": self.adapter.ids[row], "image": torch.zeros((3, 1, 1), dtype=torch.uint8), **features.item(index)}
        if self.adapter.task == "vqa":
            sample: VqaSample = self.adapter.unseen(row)  # type: ignore[attr-defined]
            item |= self._questions(sample, self._key(epoch, index, sample.id))
        return item

    @property
    def stream(self) -> tuple[object, ...]:
        """What the order of the images is a function of, and with epoch and id their augmentation."""
        return (self.seed, self.config.images_of or self.config.dataset)

    def _key(self, epoch: int, index: int, name: str) -> tuple[object, ...]:
        return (*self.stream, epoch, name if self._leader is None else self._leader.ids[index])

    def _questions(self, sample: VqaSample, key: tuple[object, ...]) -> dict[str, Any]:
        chosen = np.arange(len(sample.questions))
        if self.training and len(chosen) > self.config.questions:
            draw = np.random.default_rng(derive_seed("questions", *key))
            chosen = np.sort(draw.choice(chosen, self.config.questions, replace=False))
        return {
            "question_ids": sample.question_ids[chosen],
            "words": [self._encode(sample.questions[i]) for i in chosen],
            "texts": [sample.questions[i] for i in chosen],
            "targets": [self._target(sample.answers[i]) for i in chosen],
        }

    def _target(self, answers: Sequence[str]) -> NDArray[np.float32]:
        """What each answer of the vocabulary would get: float32 [A]."""
        found: NDArray[np.float32] = self.adapter.soft_targets(answers)  # type: ignore[attr-defined]
        return found

    def _encode(self, question: str) -> list[int]:
        words = [self._words.get(word, UNKNOWN) for word in tokenize(question)]
        return words[: self._max_words] or [UNKNOWN]

    def _cached(self, places: Sequence[Place]) -> ClassificationBatch:
        """All samples of a batch in one read, where the transform is at most a flip; the same bits as one by one."""
        assert self._cache is not None
        rows = np.array([index for _, index in places])
        if self.rows is not None:
            rows = self.rows[rows]
        images = torch.from_numpy(self._cache.images[rows])
        ids = tuple(self.adapter.ids[row] for row in rows.tolist())
        if self._transform.random:
            draws = (
                torch.rand(1, generator=torch.Generator().manual_seed(derive_seed(*self._key(epoch, index, name))))
                for (epoch, index), name in zip(places, ids, strict=True)
            )
            for row in (torch.cat(list(draws)) < self.config.flip).nonzero()[:, 0].tolist():
                images[row] = images[row].flip(-1)  # all at once would take five times as long
        return ClassificationBatch(
            ids=ids,
            images=images,
            sizes=torch.from_numpy(self._cache.sizes[rows]),
            labels=torch.from_numpy(self._cache.labels[rows]),
        )


class TrainingOrder:
    """Batches of places from `start` on, without end: epoch after epoch, each in a random order of its own.

    A function of (seed, dataset, step), so a resumed run continues exactly and two models with the same seed see the
    same samples in the same order. Batches go across epoch borders; data sets of different lengths cycle on their own.

    Several processes of a run get consecutive slices of each batch, as equal as can be.

    Args:
        data: The split.
        batch_size: Places per batch of all processes.
        start: First step.
        rank: Which slice is wanted.
        world: How many slices there are.
    """

    def __init__(self, data: TaskData, batch_size: int, start: int = 0, rank: int = 0, world: int = 1) -> None:
        self._length = len(data)
        self._batch_size = batch_size
        self._slice = range(batch_size * rank // world, batch_size * (rank + 1) // world)
        self._start = start
        self._key = data.stream

    def __iter__(self) -> Iterator[list[Place]]:
        permutation = lru_cache(maxsize=2)(self._permutation)
        position = self._start * self._batch_size
        while True:
            batch = []
            for place in self._slice:
                epoch, index = divmod(position + place, self._length)
                batch.append((epoch, int(permutation(epoch)[index])))
            yield batch
            position += self._batch_size

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng(derive_seed("order", *self._key, epoch)).permutation(self._length)


class EvaluationOrder:
    """Every image once, in canonical order.

    Several processes of a run get whole batches in turn, so that a batch is what it is with one process.

    Args:
        length: Number of images.
        batch_size: Images per batch; the last one may have fewer.
        rank: The first batch that is wanted.
        world: Every how many batches another one is wanted.
    """

    def __init__(self, length: int, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self._batches = [
            [(-1, index) for index in range(start, min(start + batch_size, length))]
            for start in range(rank * batch_size, length, world * batch_size)
        ]

    def __iter__(self) -> Iterator[list[Place]]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


class _Batches(Dataset[Any]):
    """Whole batches as the items of a torch data set.

    An error crosses from a loader process as a value: torch would wrap it in the traceback of that process, in which
    the name of the file is hard to find.
    """

    def __init__(self, data: TaskData) -> None:
        self._data = data

    def __getitem__(self, places: Sequence[Place]) -> Batch | HarnessError:
        try:
            return self._data.batch(places)
        except HarnessError as error:
            return error


def _unchanged(batch: Any) -> Any:
    return batch


def loader(data: TaskData, order: Iterable[list[Place]], workers: int) -> Iterator[Batch]:
    """Batches over `order`. They do not depend on the number of worker processes.

    Raises:
        HarnessError: An image cannot be read; the message names it.
    """
    if workers:
        start_fork_server()
    batches: Any = DataLoader(
        _Batches(data),
        batch_size=None,
        sampler=order,
        collate_fn=_unchanged,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context="forkserver" if workers else None,
        worker_init_fn=end_with_parent,
        generator=torch.Generator(),  # otherwise the loader draws its base seed from the global stream
    )
    for batch in batches:
        if isinstance(batch, HarnessError):
            raise batch
        yield batch
