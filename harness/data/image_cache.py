"""Decoded, resized images in one memory-mapped file, for runs that read them again and again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
import torchvision
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from harness.atomic import directory
from harness.cards import cache_directory
from harness.data.columns import Columns, Texts
from harness.data.config import Interpolation, TaskConfig
from harness.data.samples import (
    Adapter,
    ClassificationSample,
    DetectionSample,
    Sample,
    SegmentationSample,
    VqaSample,
)
from harness.data.stores import image_stamp
from harness.data.transforms import Transform
from harness.data.workers import end_with_parent, start_fork_server
from harness.progress import Reporter

FORMAT = 2


class ImageCache:
    """The samples of a split, images stretched to one size.

    Args:
        folder: As `image_cache` writes it.

    Attributes:
        images: uint8 [N, 3, h, w], the order in which batches are read.
        sizes: int64 [N, 2], height and width of the original images.
    """

    def __init__(self, folder: Path) -> None:
        self._columns = Columns(folder)

    @property
    def images(self) -> NDArray[np.uint8]:
        """uint8 [N, 3, h, w], mapped."""
        return self._columns["images"]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """int64 [N, 2], height and width of the original images."""
        return self._columns["sizes"]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Classification: int64 [N]."""
        return self._columns["labels"]

    def sample(self, index: int, adapter: Adapter) -> Sample:
        """A sample as the adapter would give it, but stretched."""
        name, image = adapter.ids[index], np.array(self.images[index]).transpose(1, 2, 0)
        if adapter.task == "classification":
            return ClassificationSample(name, image, int(self.labels[index]))
        if adapter.task == "segmentation":
            return SegmentationSample(name, image, np.array(self._columns["masks"][index]))
        record = orjson.loads(self._columns.texts("records")[index])
        if adapter.task == "detection":
            boxes = np.array(record["boxes"], dtype=np.float32).reshape(-1, 4)
            labels, crowd = (np.array(record[key], dtype=kind) for key, kind in (("labels", "i8"), ("crowd", "?")))
            return DetectionSample(name, image, boxes, labels, crowd)
        questions = np.array(record["question_ids"], dtype=np.int64)
        return VqaSample(name, image, questions, tuple(record["questions"]), tuple(map(tuple, record["answers"])))


def image_cache(
    adapter: Adapter,
    size: tuple[int, int],
    reporter: Reporter,
    workers: int = 0,
    interpolation: Interpolation = "bilinear",
) -> ImageCache:
    """The cache of a split, made if it is not there.

    It is filed under everything that it depends on: card, split, ids, ground truth, size and time of change of every
    image file, image size, interpolation, and the version of the library that resizes.

    Args:
        adapter: The split.
        size: Height and width.
        reporter: Shows progress.
        workers: Loader processes.
        interpolation: How images are resized.

    Raises:
        HarnessError: An image cannot be read, or the disk is full.
    """
    parts = (
        FORMAT, torchvision.__version__, adapter.card.name, adapter.card.version, adapter.split, size, interpolation,
        adapter.card.exif_orientation, adapter.image_list_hash(), adapter.annotation_hash(),
        image_stamp(adapter.card, adapter.split),
    )  # fmt: skip
    folder = cache_directory() / "images" / hashlib.sha256(repr(parts).encode()).hexdigest()
    if not folder.is_dir():
        with directory(folder, replace=True) as unfinished:
            _fill(unfinished, _Stretched(adapter, size, interpolation), adapter, size, reporter, workers)
    return ImageCache(folder)


def _fill(
    folder: Path, stretched: _Stretched, adapter: Adapter, size: tuple[int, int], reporter: Reporter, workers: int
) -> None:
    count = len(adapter)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (count, 3, *size))
    masks = None
    if adapter.task == "segmentation":
        masks = np.lib.format.open_memmap(folder / "masks.npy", "w+", np.uint8, (count, *size))
    sizes, labels = np.zeros((count, 2), dtype=np.int64), np.zeros(count, dtype=np.int64)
    records = []
    if workers:
        start_fork_server()
    rows: Any = DataLoader(
        stretched,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context="forkserver" if workers else None,
        worker_init_fn=end_with_parent,
        generator=torch.Generator(),
    )
    with reporter.bar(f"caching {adapter.card.name} {adapter.split}", count) as bar:
        for index, row in enumerate(rows):
            images[index], sizes[index], labels[index] = row["image"], row["size"], row.get("label", 0)
            if masks is not None:
                masks[index] = row["mask"]
            records.append(row["record"])
            bar.advance()
    images.flush()
    np.save(folder / "sizes.npy", sizes)
    np.save(folder / "labels.npy", labels)
    packed = Texts.of(records)
    np.save(folder / "records.bytes.npy", packed.data)
    np.save(folder / "records.starts.npy", packed.starts)


class _Stretched(Dataset[Any]):
    """One row of the cache per image."""

    def __init__(self, adapter: Adapter, size: tuple[int, int], interpolation: Interpolation) -> None:
        self._adapter = adapter
        config = TaskConfig(dataset="cache", batch_size=1, image_size=size, interpolation=interpolation)
        self._transform = Transform(config, training=False)

    def __len__(self) -> int:
        return len(self._adapter)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample: Sample = self._adapter[index]
        boxes, mask = getattr(sample, "boxes", None), getattr(sample, "mask", None)
        out = self._transform(sample.image, (), boxes=boxes, mask=mask)
        row: dict[str, Any] = {"image": out["image"].numpy(), "size": sample.image.shape[:2]}
        record: dict[str, Any] = {}
        if isinstance(sample, ClassificationSample):
            row["label"] = sample.label
        elif isinstance(sample, SegmentationSample):
            row["mask"] = out["mask"].to(torch.uint8).numpy()
        elif isinstance(sample, DetectionSample):
            record = {"boxes": out["boxes"].tolist(), "labels": sample.labels.tolist(), "crowd": sample.crowd.tolist()}
        else:
            record = {
                "question_ids": sample.question_ids.tolist(),
                "questions": sample.questions,
                "answers": sample.answers,
            }
        return row | {"record": orjson.dumps(record).decode()}
