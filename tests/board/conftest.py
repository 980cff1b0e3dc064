"""A builder of small boards: entries whose every image is right or wrong as the test says."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.board.records import Protocol, Provenance, Record, TaskResult, hash_arrays, write_record
from harness.evaluation import classification
from harness.evaluation.metric import Result


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Builder:
    """Makes records of classification results on any cards and stores them on a board."""

    def __init__(self, board: Path) -> None:
        self.board = board

    def task(self, card: str, correct: Sequence[bool], **protocol: Any) -> tuple[TaskResult, Result]:
        labels = np.arange(len(correct)) % 3
        predicted = np.where(correct, labels, (labels + 1) % 3)
        ids = [f"{number:05d}" for number in range(len(correct))]
        result = classification.evaluate(labels, predicted, ids, classes=["red", "green", "blue"])
        parts = {
            "card": card,
            "card_version": "1",
            "split": "val",
            "images": sha256("\n".join(ids)),
            "annotations": sha256(card),
            "metric": "top1",
            "metric_version": 1,
        }
        return TaskResult(
            task="classification",
            protocol=Protocol(**(parts | protocol)),
            main="top1",
            metrics=result.reduce(),
            per_class=result.per_class(),
            images=len(correct),
            statistics=hash_arrays(result.statistics),
        ), result

    def record(
        self, name: str, correct: Mapping[str, Sequence[bool]], seed: int = 0, **fields: Any
    ) -> tuple[Record, dict[str, Any]]:
        protocol = fields.pop("protocol", {})
        tasks = {card: self.task(card, marks, **protocol) for card, marks in correct.items()}
        given = {"fingerprint": sha256(name)[:12], "provenance": Provenance(version="0.1.0")} | fields
        record = Record(name=name, seed=seed, tasks={card: task for card, (task, _) in tasks.items()}, **given)
        return record, {card: result.statistics for card, (_, result) in tasks.items()}

    def add(self, name: str, correct: Mapping[str, Sequence[bool]], seed: int = 0, **fields: Any) -> Record:
        replace = fields.pop("replace", False)
        record, statistics = self.record(name, correct, seed, **fields)
        write_record(self.board, record, statistics, replace)
        return record


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(tmp_path / "leaderboard")


def marks(right: int, total: int) -> list[bool]:
    """The first `right` of `total` images are right."""
    return [number < right for number in range(total)]


@pytest.fixture
def right() -> Any:
    """`right(3, 5)`: five images of which the first three are right."""
    return marks
