"""What analyses look at: a trained network, its data, and a choice of images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.board.records import Record
from harness.data.loading import TaskData
from harness.models.network import MultiTaskNetwork
from harness.progress import Reporter
from harness.run_data import Splits
from harness.submission import Submission
from harness.training.engine import Engine


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        record: What the board holds of it.
        submission: As it was run.
        folder: The run's folder.
        network: With the final weights, in evaluation mode, on the engine's device.
        engine: Device and precision.
        splits: The data.
        data: By data set the images of the evaluation split that are looked at.
        reporter: Shows progress.
    """

    record: Record
    submission: Submission
    folder: Path
    network: MultiTaskNetwork
    engine: Engine
    splits: Splits
    data: dict[str, TaskData]
    reporter: Reporter


def evenly(length: int, count: int) -> NDArray[np.int64]:
    """`count` of `length` places, evenly spaced, first and last among them; all where there are fewer."""
    if count >= length:
        return np.arange(length, dtype=np.int64)
    return np.unique(np.linspace(0, length - 1, count).round().astype(np.int64))
