"""From a trained network to files of predictions in each task's official format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

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
    """Predict one task's split and write the file, which appears whole or not at all.

    Classification gives an NPZ of ids and logits, detection COCO results JSON, segmentation a folder of label-id PNGs
    with Cityscapes names, VQA results JSON.

    Args:
        network: Trained.
        engine: Device and precision.
        name: The task's dataset name.
        data: The split, without augmentation.
        path: File (segmentation: folder) to write.
        batch_size: Images per forward pass.
        reporter: Shows progress.
        workers: Loader processes.
    """
    network.eval()
    if data.config.resize == "native":
        batch_size = 1  # full-resolution images, each of a size of its own

    def outputs() -> Iterator[tuple[Batch, Any]]:
        with reporter.bar(f"predicting {name}", len(data)) as bar:
            for batch in loader(data, EvaluationOrder(len(data), batch_size), workers):
                moved = batch.to(engine.device)
                with engine.autocast():
                    if data.config.sliding_window:
                        output: Any = slide(network, name, cast(SegmentationBatch, moved), data.config.image_size)
                    else:
                        output = network.predict(name, moved)
                yield moved, output
                bar.advance(len(batch.ids))

    _WRITERS[data.adapter.task](path, data.adapter, outputs())


Outputs = Iterator[tuple[Batch, Any]]


def _classification(path: Path, adapter: Any, outputs: Outputs) -> None:
    ids: list[str] = []
    logits = []
    for batch, output in outputs:
        ids += batch.ids
        logits.append(output.float().cpu().numpy())
    predictions.write_classification(path, ids, np.concatenate(logits))


def _detection(path: Path, adapter: Any, outputs: Outputs) -> None:
    results = []
    for batch, output in outputs:
        for image_id, found in zip(batch.ids, output, strict=True):
            boxes = found["boxes"].double().cpu()
            boxes[:, 2:] -= boxes[:, :2]  # COCO: x, y, width, height
            for box, score, label in zip(
                boxes.tolist(), found["scores"].double().tolist(), found["labels"].tolist(), strict=True
            ):
                category = int(adapter.category_ids[label])
                results.append({"image_id": int(image_id), "category_id": category, "bbox": box, "score": score})
    predictions.write_detections(path, results)


def _segmentation(path: Path, adapter: Any, outputs: Outputs) -> None:
    with directory(path, replace=True) as folder:
        for batch, output in outputs:
            for image_id, mask in zip(batch.ids, train_ids(output, batch.sizes, batch.contents), strict=True):
                predictions.write_segmentation(folder, image_id, adapter.label_ids[mask.cpu().numpy()])


def _vqa(path: Path, adapter: Any, outputs: Outputs) -> None:
    question_ids: list[int] = []
    answers: list[str] = []
    for batch, output in outputs:
        question_ids += cast(VqaBatch, batch).question_ids.tolist()
        answers += [adapter.classes[index] for index in torch.argmax(output, dim=1).tolist()]
    predictions.write_vqa(path, question_ids, answers)


_WRITERS: dict[Task, Callable[[Path, Any, Outputs], None]] = {
    "classification": _classification,
    "detection": _detection,
    "segmentation": _segmentation,
    "vqa": _vqa,
}
