"""What the board shows of a run, in the forms that Weights & Biases has: numbers, tables and images."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

from PIL import Image

from harness.board.gallery import MANIFEST, SUFFIX, Gallery, Sheet
from harness.board.records import Record, TaskResult
from harness.board.text import percent
from harness.evaluation.metric import Result

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


def examples(gallery: Mapping[str, bytes]) -> dict[str, Any]:
    """The pictures that the board shows of a run's best and worst images, as W&B images by task.

    Where ground truth and prediction can be drawn, each has a panel beside the image; else both are in the caption.
    Images of data sets whose card does not say ``redistributable: true`` are in no gallery and stay here: W&B is
    somebody else's machine.

    Args:
        gallery: From `harness.gallery.make_gallery`.
    """
    if not gallery:
        return {}
    sheets = Gallery.model_validate_json(gallery[MANIFEST]).sheets
    return {f"examples/{card}": _images(sheet, gallery[f"{card}{SUFFIX}"]) for card, sheet in sheets.items()}


def _images(sheet: Sheet, picture: bytes) -> list[Any]:
    import wandb

    whole = Image.open(io.BytesIO(picture)).convert("RGB")
    panels = " | ".join(sheet.panels)
    return [
        wandb.Image(
            whole.crop((0, one.y, one.width, one.y + one.height)),
            caption="\n".join(
                [
                    f"{one.side}: {one.id}, {percent(one.value)}%",
                    *([panels] if len(sheet.panels) > 1 else []),
                    *(f"{label}: {text}" for label, text in one.lines),
                ]
            ),
        )
        for one in sheet.examples
    ]


def _by_class(task: TaskResult) -> list[list[Any]]:
    return [[name, value] for name, value in task.per_class.items()]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
