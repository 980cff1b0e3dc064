"""What the board shows of a run, in the forms that Weights & Biases has: numbers, tables and images."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from harness.board.records import Record, TaskResult
from harness.data.samples import (
    Adapter,
    ClassificationSample,
    DetectionSample,
    Sample,
    SegmentationSample,
    VqaSample,
)
from harness.evaluation.metric import Result

EXAMPLES = 4  # images of each task
IGNORED = 255  # of a label map


Ends = tuple[float | None, float | None]


def intervals(results: Mapping[str, Result]) -> dict[str, Ends]:
    """Ends of each headline number's 95% interval over images, by card; None where undefined."""
    found = {card: result.interval() for card, result in results.items()}
    return {card: (_finite(one.low), _finite(one.high)) for card, one in found.items()}


def summary(record: Record, ends: Mapping[str, Ends]) -> dict[str, Any]:
    """Final numbers by name: metrics and the headline numbers' 95% intervals as fractions, costs, and the record's id.

    Args:
        record: The run's record.
        ends: From `intervals`.
    """
    numbers: dict[str, Any] = {"record/id": record.id, "record/rankable": record.rankable}
    for card, task in record.tasks.items():
        numbers |= {f"{card}/{key}": value for key, value in task.metrics.items()}
        for end, value in zip(("low", "high"), ends[card], strict=True):
            numbers[f"{card}/{task.main}/{end}"] = value
    costs = record.cost.model_dump(exclude={"parameters_by_part", "macs", "train_seconds_by_phase"})
    return numbers | {f"cost/{key}": value for key, value in costs.items() if value is not None}


def tables(record: Record, ends: Mapping[str, Ends]) -> dict[str, Any]:
    """W&B tables by name: all metrics of all tasks, each task by class, the costs by part, and the warnings."""
    import wandb

    metrics = [
        [card, key, value, *(ends[card] if key == task.main else (None, None))]
        for card, task in record.tasks.items()
        for key, value in task.metrics.items()
    ]
    found = {"tables/metrics": wandb.Table(columns=["card", "metric", "value", "low", "high"], data=metrics)}
    for card, task in record.tasks.items():
        found[f"tables/{card} by class"] = wandb.Table(columns=["class", task.main], data=_by_class(task))
    cost = record.cost
    parts = [
        [kind, name, float(value)]
        for kind, values in (
            ("parameters", cost.parameters_by_part),
            ("MACs per image", cost.macs),
            ("training seconds", cost.train_seconds_by_phase),
        )
        for name, value in values.items()
        if value is not None
    ]
    found["tables/cost"] = wandb.Table(columns=["cost", "part", "value"], data=parts)
    notes = [[text] for text in [*record.unrankable_because, *record.warnings]]
    found["tables/notes"] = wandb.Table(columns=["note"], data=notes)
    return found


def examples(adapters: Mapping[str, Adapter]) -> dict[str, Any]:
    """The first images of each evaluation split with their ground truth, as W&B images.

    Images of data sets whose card does not say ``redistributable: true`` stay here: W&B is somebody else's machine.
    """
    return {
        f"examples/{card}": [
            _image(sample, adapter.classes) for sample in map(adapter.__getitem__, range(min(EXAMPLES, len(adapter))))
        ]
        for card, adapter in adapters.items()
        if adapter.card.redistributable
    }


def _image(sample: Sample, classes: tuple[str, ...]) -> Any:
    import wandb

    names = dict(enumerate(classes))
    marks: dict[str, Any] = {}
    text = ""
    if isinstance(sample, ClassificationSample):
        text = names[sample.label]
    elif isinstance(sample, DetectionSample):
        boxes = [
            {
                "position": {"minX": x0, "minY": y0, "maxX": x1, "maxY": y1},
                "domain": "pixel",
                "class_id": label,
                "box_caption": names[label],
            }
            for (x0, y0, x1, y1), label in zip(sample.boxes.tolist(), sample.labels.tolist(), strict=True)
        ]
        marks["boxes"] = {"ground truth": {"box_data": boxes, "class_labels": names}}
    elif isinstance(sample, SegmentationSample):
        labels = {**names, IGNORED: "ignored"}
        marks["masks"] = {"ground truth": {"mask_data": sample.mask, "class_labels": labels}}
    elif isinstance(sample, VqaSample) and sample.questions:
        answer, _ = Counter(sample.answers[0]).most_common(1)[0]
        text = f"{sample.questions[0]} {answer}"
    return wandb.Image(sample.image, caption=f"{sample.id} {text}".strip(), **marks)


def _by_class(task: TaskResult) -> list[list[Any]]:
    return [[name, value] for name, value in task.per_class.items()]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
