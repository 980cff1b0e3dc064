"""A task's headline number on the images that are looked at, by the scoring path of every record."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from harness.analysis.opening import Run
from harness.analysis.tokens import Change, changed
from harness.evaluation.metric import Result
from harness.evaluation.resampling import paired_difference
from harness.progress import Reporter
from harness.scoring import score
from harness.training.inference import SUFFIX, predict


def scored(run: Run, name: str, change: Change | None = None) -> Result:
    """Predict and score one task.

    Args:
        run: The run.
        name: The task's data set.
        change: What becomes of the tokens at every site; None leaves them alone.
    """
    data = run.data[name]
    with tempfile.TemporaryDirectory(prefix="harness-analysis-") as folder:
        path = Path(folder) / f"predictions{SUFFIX[data.adapter.task]}"
        batch_size, workers = run.submission.evaluation.batch_size, run.submission.training.workers
        arguments = (run.network, run.engine, name, data, path, batch_size, Reporter(quiet=True), workers)
        if change is None:
            predict(*arguments)
        else:
            with changed(run.network, name, change):
                predict(*arguments)
        return score(data.adapter, path, data.rows)


def difference(after: Result, before: Result, draws: int) -> dict[str, Any]:
    """Headline number after a change minus the one before, with a paired 95% interval over images."""
    found = paired_difference([after], [before], draws)
    return {"difference": found.difference, "low": found.interval.low, "high": found.interval.high}
