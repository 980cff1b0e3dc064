"""The same images through every task's path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.analysis.run import Run, evenly
from harness.data.batches import Batch, VqaBatch
from harness.data.loading import EvaluationOrder, TaskData, loader
from harness.data.samples import (
    Adapter,
    ClassificationSample,
    DetectionSample,
    SegmentationSample,
    VqaSample,
)
from harness.models.features import Features, padding_of, pooled
from harness.run_data import Splits, task_data

QUESTIONS = 4  # that are asked about every image
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Probed:
    """What one task's path makes of n images.

    Attributes:
        tokens: float64 [n, d], the mean token as the task's head leaves it, mean over its questions; None without
            tokens.
        features: float64 [n, F], what the head gets: the pooled feature, or the means of the maps; None for a head that
            sees no image.
        outputs: float64 [n, O], the head's output maps, mean over places; of all questions side by side.
    """

    tokens: Matrix | None
    features: Matrix | None
    outputs: Matrix


class Pictures(Adapter):
    """Images of several data sets as samples of one task, without anything to learn from.

    Args:
        like: An adapter of the task, for classes and answers.
        places: The images: an adapter and a row in it, each.
        questions: What is asked about every image, for VQA.
    """

    def __init__(self, like: Adapter, places: Sequence[tuple[Adapter, int]], questions: Sequence[str] = ()) -> None:
        self.card, self.split = like.card, like.split
        self.task = like.task  # type: ignore[misc]
        self._like, self._places, self._questions = like, list(places), tuple(questions)
        self.ids = [f"{adapter.card.name}/{adapter.ids[row]}" for adapter, row in self._places]

    def __getitem__(self, index: int) -> Any:
        adapter, row = self._places[index]
        image, name = adapter[row].image, self.ids[index]
        if self.task == "classification":
            return ClassificationSample(name, image, 0)
        if self.task == "detection":
            boxes = np.zeros((0, 4), np.float32)
            return DetectionSample(name, image, boxes, np.zeros(0, np.int64), np.zeros(0, np.bool_))
        if self.task == "segmentation":
            return SegmentationSample(name, image, np.zeros(image.shape[:2], np.uint8))
        numbers = np.arange(len(self._questions), dtype=np.int64)
        return VqaSample(name, image, numbers, self._questions, ((),) * len(self._questions))

    @property
    def classes(self) -> tuple[str, ...]:
        """Of the task."""
        return self._like.classes

    def soft_targets(self, answers: Sequence[str]) -> NDArray[np.float32]:
        """No answer scores: none is known."""
        return np.zeros(len(self.classes), np.float32)

    def ground_truth_files(self) -> Sequence[Path]:
        """There is none."""
        return ()


def places(run: Run, count: int) -> list[tuple[Adapter, int]]:
    """`count` evaluation images, about equally many of each task's, those of the first task first."""
    shares = np.array_split(np.arange(count), len(run.data))
    found: list[tuple[Adapter, int]] = []
    for share, data in zip(shares, run.data.values(), strict=True):
        found += [(data.adapter, int(row)) for row in evenly(len(data.adapter), len(share))] if len(share) else []
    return found


def questions(run: Run, name: str) -> list[str]:
    """The first questions about some evenly spaced evaluation images of a VQA task, each text once."""
    adapter = run.data[name].adapter
    texts = [str(adapter[int(row)].questions[0]) for row in evenly(len(adapter), 8 * QUESTIONS)]
    return list(dict.fromkeys(texts))[:QUESTIONS]


def probe(run: Run, name: str, images: Sequence[tuple[Adapter, int]]) -> Probed:
    """Send images through the path of one task: its preprocessing, its part of the network, its head.

    Args:
        run: The run.
        name: The task's data set.
        images: From `places`.
    """
    like = run.data[name].adapter
    pictures = Pictures(like, images, questions(run, name) if like.task == "vqa" else ())
    tokens, features, outputs = [], [], []
    for one in passes(run, name, whole_images(run, name, pictures)):
        means = _means(one.outputs, one.batch)
        outputs.append(means.reshape(len(one.batch.ids), -1))  # of every image's questions side by side
        if one.features is not None:
            features.append(_read(run, name, one.features, one.batch))
        if one.tokens is not None:
            tokens.append(by_image(one.tokens.float().mean(1), one.batch))
    stacked = _stacked(outputs)
    assert stacked is not None
    return Probed(_stacked(tokens), _stacked(features), stacked)


def own_tokens(run: Run, name: str) -> Matrix | None:
    """The mean token of each of a task's own images, as its head leaves it, float64 [N, d]; None without tokens."""
    data = whole_images(run, name, run.data[name].adapter)
    data.rows = run.data[name].rows
    found = [
        by_image(one.tokens.float().mean(1), one.batch) for one in passes(run, name, data) if one.tokens is not None
    ]
    return _stacked(found)


def whole_images(run: Run, name: str, adapter: Adapter) -> TaskData:
    """Images as a task is evaluated on them; those that it takes in windows are squeezed into one window here."""
    data = task_data(run.submission, run.record.seed, Splits(run.splits.train, {name: adapter}), name, False)
    if not data.config.sliding_window:
        return data
    whole = run.submission.task(name).model_copy(update={"resize": "stretch", "sliding_window": False})
    return TaskData(adapter, whole, False, run.record.seed)  # windows are for segmentation: there are no words


@dataclass(frozen=True)
class Pass:
    """A batch and what the network made of it.

    Attributes:
        batch: On the network's device.
        features: What the head got, or None where it sees no image.
        outputs: The head's output maps, float [B or Q, C, h, w] each.
        tokens: float [B or Q, K, d] as they were in the end, or None without tokens.
    """

    batch: Batch
    features: Features | None
    outputs: tuple[Tensor, ...]
    tokens: Tensor | None


def passes(run: Run, name: str, data: TaskData) -> Iterator[Pass]:
    """Send all images of some data through a task's part of the network, in their order."""
    size = 1 if data.config.resize == "native" else run.submission.evaluation.batch_size
    run.network.eval()
    run.network.prepare(name)
    for batch in loader(data, EvaluationOrder(len(data), size), run.submission.training.workers):
        yield single_pass(run, name, batch.to(run.engine.device))


def single_pass(run: Run, name: str, batch: Batch) -> Pass:
    """Send one batch through a task's part of the network."""
    with run.engine.autocast():
        return Pass(batch, *run.network.trace(name, batch))


def by_image(rows: Tensor, batch: Batch) -> Tensor:
    """Rows of questions as rows of images, each the mean over the image's questions; rows of images as they are."""
    if not isinstance(batch, VqaBatch):
        return rows
    index = batch.image_index.to(rows.device)
    total = rows.new_zeros(len(batch.ids), rows.shape[1]).index_add_(0, index, rows)
    return total / torch.bincount(index, minlength=len(batch.ids)).to(rows)[:, None]


def _read(run: Run, name: str, features: Features, batch: Batch) -> Tensor:
    if run.network.reads(name) == "pooled" or not features.pyramid:
        return features.pooled.float()
    return _means(features.pyramid.values(), batch)


def _means(levels: Iterable[Tensor], batch: Batch) -> Tensor:
    """The mean of each map over what is no padding, one beside the other: float [R, sum of channels]."""
    return torch.cat([pooled(level.float(), padding_of(level, batch)) for level in levels], dim=1)


def _stacked(parts: Sequence[Tensor]) -> Matrix | None:
    return torch.cat([part.cpu() for part in parts]).double().numpy() if parts else None
