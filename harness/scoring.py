"""The one scoring path: predictions in a task's official format and the card's ground truth become statistics."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from harness import provenance
from harness.board.fields import Count, EntryName
from harness.board.names import check_name
from harness.board.packing import predictions_hash
from harness.board.records import Protocol, Provenance, Record, TaskResult, hash_arrays, write_record
from harness.cards import load_card
from harness.data import open_split
from harness.data.label_map_folders import LabelMapFolders
from harness.data.real_labels import real_labels
from harness.data.samples import Adapter
from harness.errors import HarnessError
from harness.evaluation import classification, detection, segmentation, vqa
from harness.evaluation.columns import show
from harness.evaluation.files import require_file
from harness.evaluation.label_map import LabelMap
from harness.evaluation.metric import Result
from harness.evaluation.predictions import read_classification
from harness.gallery import make_gallery
from harness.ground_truth import without_answers


def score(adapter: Adapter, predictions: Path, rows: NDArray[np.int64] | None = None) -> Result:
    """Score predictions in the official format of the adapter's task.

    Args:
        adapter: The split that was predicted.
        predictions: COCO results JSON, NPZ or Parquet; VQA results JSON; classification CSV or NPZ; folder or zip of
            label-id PNGs.
        rows: int64 [M], the images that were predicted, if not all of the split.

    Returns:
        Per-image statistics and the numbers that follow.

    Raises:
        HarnessError: The predictions are not valid or not complete; the message names the place and the mend.
    """
    ids = adapter.ids if rows is None else [adapter.ids[row] for row in rows]
    if adapter.task == "classification":
        scores = read_classification(predictions, ids, len(adapter.classes))
        real = real_labels(adapter.card, adapter.split, ids, len(adapter.classes))
        labels = np.asarray(adapter.labels)  # type: ignore[attr-defined]
        return classification.evaluate(labels if rows is None else labels[rows], scores, ids, adapter.classes, real)
    if adapter.task == "segmentation":
        (truth,) = adapter.truth()
        found = adapter.predicted(predictions) if isinstance(adapter, LabelMapFolders) else predictions
        return segmentation.evaluate(truth, found, LabelMap.of(adapter.card.classes), ids)
    images = [int(image) for image in ids]
    if adapter.task == "detection":
        (instances,) = adapter.truth()
        return detection.evaluate(instances, predictions, images)
    questions, annotations = adapter.truth()
    return vqa.evaluate(questions, annotations, predictions, images)


def rehearse(adapter: Adapter) -> None:
    """Score trivial predictions, so that ground truth which scoring refuses is told before training, not after.

    Label maps are not read: ``harness data check`` does that.

    Raises:
        HarnessError: The ground truth of the split is not valid.
    """
    if adapter.task in ("detection", "vqa"):
        without_answers(adapter)


def task_result(
    adapter: Adapter, result: Result, predictions: Path, preprocessing: Mapping[str, Any] | None = None
) -> TaskResult:
    """A task's part of a record.

    Args:
        adapter: The split that was predicted.
        result: Its score.
        predictions: The file that was scored.
        preprocessing: What was done to each image before the network.
    """
    return TaskResult(
        task=adapter.task,
        protocol=Protocol(
            card=adapter.card.name,
            card_version=adapter.card.version,
            split=adapter.split,
            images=adapter.image_list_hash(),
            annotations=adapter.annotation_hash(),
            metric=result.metric,
            metric_version=result.version,
        ),
        main=result.main,
        metrics=dict(result.reduce()),
        per_class=dict(result.per_class()),
        images=len(result.ids),
        statistics=hash_arrays(result.statistics),
        predictions=predictions_hash(predictions),
        preprocessing=dict(preprocessing or {}),
    )


def fingerprint_of_predictions(card: str, name: str) -> str:
    """The fingerprint of predictions that were handed in: no submission tells them apart, so card and name do."""
    return hashlib.sha256(f"{card}\0{name}".encode()).hexdigest()[:12]


def unrankable_reasons(adapters: Sequence[Adapter], limit: int | None) -> list[str]:
    """Why a record on these splits must not be ranked: a limit, or another number of examples than the card states."""
    if limit is not None:
        return [f"limited to {limit} images"]
    reasons = []
    for adapter in adapters:
        stated = adapter.card.splits[adapter.split].size  # type: ignore[index]
        if stated is not None and stated != adapter.examples:
            place = f"{adapter.card.name}: split {adapter.split}"
            reasons.append(f"{place} has {adapter.examples:,} examples, its card states {stated:,}")
    return reasons


def record_predictions(
    card_name: str, predictions: Path, name: str, seed: int, board: Path, limit: int | None = None
) -> Record:
    """Score a stranger's predictions and store them as a record.

    Raises:
        HarnessError: Name, seed, the card, its data or the predictions are not valid; nothing is stored.
    """
    _check_entry(name, seed)
    check_name(board, name)
    card = load_card(card_name)
    adapter = open_split(card, card.evaluation_split, limit)
    if not predictions.exists():
        raise HarnessError(f"{predictions}: no such file or folder")
    require_file(predictions)
    result = score(adapter, predictions)
    task = task_result(adapter, result, predictions)
    reasons = unrankable_reasons([adapter], limit)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = Record(
        name=name,
        fingerprint=fingerprint_of_predictions(card.name, name),
        seed=seed,
        tasks={card.name: task},
        provenance=Provenance(version=provenance.version(), started=now, finished=now),
        trust="rescored",
        rankable=not reasons,
        unrankable_because=reasons,
    )
    pictures = make_gallery({card.name: (adapter, predictions, result)}) if limit is None else {}
    write_record(board, record, {card.name: result.statistics}, gallery=pictures)
    return record


def _check_entry(name: str, seed: int) -> None:
    """See to it that a record can be called so, before anything is scored."""
    for field, kind, value, mend in (
        ("name", EntryName, name, "write up to 100 of A-Z, a-z, 0-9, '.', '_' and '-', a letter or a digit first"),
        ("seed", Count, seed, f"write a whole number from 0 to {2**63 - 1}"),
    ):
        try:
            TypeAdapter(kind).validate_python(value)
        except ValidationError:
            raise HarnessError(f"{field}: {show(value)} is not an entry's {field}; {mend}") from None
