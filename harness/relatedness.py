"""The stage after all scores: how alike the tasks of a trained network are, where the submission asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from harness.analysis.relatedness import relatedness
from harness.analysis.run import Run
from harness.atomic import write_json
from harness.board.records import Record
from harness.board.related import Relatedness
from harness.data.loading import TaskData
from harness.errors import HarnessError
from harness.models.network import MultiTaskNetwork
from harness.progress import Reporter
from harness.run_data import Splits
from harness.submission import Submission
from harness.training.engine import Engine

FILE = "relatedness.json"


def measure(
    record: Record,
    submission: Submission,
    network: MultiTaskNetwork,
    engine: Engine,
    splits: Splits,
    data: Mapping[str, TaskData],
    folder: Path,
    reporter: Reporter,
) -> Record:
    """Add to a record how alike its tasks are. In the main process alone, which changes no weight.

    What was measured stays in the run's folder and is not measured again.

    Args:
        record: Of the run.
        submission: Says whether, and on how many images.
        network: Trained.
        engine: Device and precision.
        splits: The data.
        data: The evaluation split of every task.
        folder: The run's.
        reporter: Shows progress.

    Returns:
        The record, as it was where nothing is asked for.
    """
    count = submission.evaluation.relatedness
    if count is None:
        return record
    file = folder / FILE
    if not file.exists():
        reporter.say("the same images through every task's path")
        run = Run(record, submission, folder, network, engine, splits, dict(data), reporter)
        write_json(file, _between_tasks(relatedness(run, count)))
    try:
        found = Relatedness.model_validate(orjson.loads(file.read_bytes()))
    except ValueError as error:
        raise HarnessError(
            f"{file}: cannot be read as relatedness ({str(error).partition(chr(10))[0]}); remove it, and it is measured"
            " again"
        ) from None
    return Record.model_validate(record.model_dump() | {"relatedness": found})


def _between_tasks(found: Mapping[str, Any]) -> dict[str, Any]:
    """Without each task beside itself, and without tokens where there are none."""
    pairs = {key: [one for one in found[key] if one["a"] != one["b"]] for key in ("features", "tokens", "outputs")}
    if all(one["cka"] is None for one in pairs["tokens"]):
        pairs["tokens"] = []
    return {"images": found["images"]} | pairs
