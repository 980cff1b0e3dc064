"""From a trained network to files of predictions in each task's official format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.atomic import directory
from harness.cards import Task
from harness.data.batches import Batch, SegmentationBatch, VqaBatch
from harness.data.loading import EvaluationOrder, TaskData, loader
from harness.evaluation import predictions
from harness.models.network import MultiTaskNetwork
from harness.progress import Reporter
from harness.training.engine import Engine
from harness.training.windows import slide, train_ids

SUFFIX: dict[Task, str] = {"classification": ".npz", "detection": ".json", "segmentation": "", "vqa": ".json"}


def predict(
    network: MultiTaskNetwork,
    engine: Engine,
    name: str,
    data: TaskData,
    path: Path,
    batch_size: int,
    reporter: Reporter,
    workers: int = 0,
) -> None:
    """Predict one task's split and write the file, which appears whole or not at all. All processes.

    They take the batches in turn, with the main one's weights, and the main process writes what all of them found in
    the order of the images: the file is what one process would have written.

    Classification gives an NPZ of ids and logits, detection COCO results JSON, segmentation a folder of label-id PNGs
    with Cityscapes names, VQA results JSON.

    Args:
        network: Trained.
        engine: Device, precision and processes.
        name: The task's dataset name.
        data: The split, without augmentation.
        path: File (segmentation: folder) to write; of the main process.
        batch_size: Images per forward pass.
        reporter: Shows progress.
        workers: Loader processes.
    """
    engine.share(network)
    network.eval()
    if data.config.resize == "native":
        batch_size = 1  # full-resolution images, each of a size of its own
    found = _found(network, engine, name, data, batch_size, reporter, workers)
    if engine.main:
        _WRITERS[data.adapter.task](path, found)
    else:
        for _ in found:  # nothing comes here; what this process finds goes to the main one
            pass


def _found(
    network: MultiTaskNetwork,
    engine: Engine,
    name: str,
    data: TaskData,
    batch_size: int,
    reporter: Reporter,
    workers: int,
) -> Iterator[Any]:
    """What each batch came to, in order, at the main process."""
    order = EvaluationOrder(len(data), batch_size, engine.rank, engine.world)
    batches = iter(loader(data, order, workers))
    rounds = -(-len(data) // (batch_size * engine.world))
    with reporter.bar(f"predicting {name}", len(data)) as bar:
        for _ in range(rounds):
            batch = next(batches, None)  # in the last round there may be none for this process
            own = None
            if batch is not None:
                output = _output(network, engine, name, data, batch.to(engine.device))
                own = len(batch.ids), _RESULTS[data.adapter.task](data.adapter, batch, output)
            for images, result in [one for one in engine.gather(own) if one is not None]:
                yield result
                bar.advance(images)


def _output(network: MultiTaskNetwork, engine: Engine, name: str, data: TaskData, batch: Batch) -> Any:
    with engine.autocast():
        if data.config.sliding_window:
            return slide(network, name, cast(SegmentationBatch, batch), data.config.image_size)
        return network.predict(name, batch)


def _logits(adapter: Any, batch: Batch, output: Tensor) -> tuple[tuple[str, ...], NDArray[Any]]:
    return batch.ids, output.float().cpu().numpy()


def _boxes(adapter: Any, batch: Batch, output: list[dict[str, Tensor]]) -> list[dict[str, Any]]:
    results = []
    for image_id, found in zip(batch.ids, output, strict=True):
        boxes = found["boxes"].double().cpu()
        boxes[:, 2:] -= boxes[:, :2]  # COCO: x, y, width, height
        for box, score, label in zip(
            boxes.tolist(), found["scores"].double().tolist(), found["labels"].tolist(), strict=True
        ):
            category = int(adapter.category_ids[label])
            results.append({"image_id": int(image_id), "category_id": category, "bbox": box, "score": score})
    return results


def _label_maps(adapter: Any, batch: Batch, output: Tensor) -> list[tuple[str, NDArray[np.uint8]]]:
    masks = train_ids(output, batch.sizes, batch.contents)
    return [(image_id, adapter.label_ids[mask.cpu().numpy()]) for image_id, mask in zip(batch.ids, masks, strict=True)]


def _answers(adapter: Any, batch: Batch, output: Tensor) -> tuple[list[int], list[str]]:
    answers = [adapter.classes[index] for index in torch.argmax(output, dim=1).tolist()]
    return cast(VqaBatch, batch).question_ids.tolist(), answers


# From a batch and the network's output to plain values and arrays, which one process can send to another.
_RESULTS: dict[Task, Callable[[Any, Any, Any], Any]] = {
    "classification": _logits,
    "detection": _boxes,
    "segmentation": _label_maps,
    "vqa": _answers,
}


def _write_logits(path: Path, results: Iterator[tuple[tuple[str, ...], NDArray[Any]]]) -> None:
    ids, logits = zip(*results, strict=True)
    predictions.write_classification(path, list(chain(*ids)), np.concatenate(logits))


def _write_boxes(path: Path, results: Iterator[list[dict[str, Any]]]) -> None:
    predictions.write_detections(path, chain.from_iterable(results))


def _write_label_maps(path: Path, results: Iterator[list[tuple[str, NDArray[np.uint8]]]]) -> None:
    with directory(path, replace=True) as folder:
        for image_id, label_ids in chain.from_iterable(results):
            predictions.write_segmentation(folder, image_id, label_ids)


def _write_answers(path: Path, results: Iterator[tuple[list[int], list[str]]]) -> None:
    question_ids, answers = zip(*results, strict=True)
    predictions.write_vqa(path, list(chain(*question_ids)), list(chain(*answers)))


_WRITERS: dict[Task, Callable[[Path, Iterator[Any]], None]] = {
    "classification": _write_logits,
    "detection": _write_boxes,
    "segmentation": _write_label_maps,
    "vqa": _write_answers,
}
