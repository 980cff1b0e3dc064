"""Weights & Biases, which may never ask anything and never break a run."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.board.records import Record
from harness.evaluation.metric import Result
from harness.training.publishing import examples, intervals, summary, tables


class Tracker:
    """Logs a run to W&B.

    Args:
        mode: ``offline``, ``online`` or ``disabled``. Online without an API key falls back to offline.
        folder: The run's folder; W&B's files go there.
        run_id: Stable id, so that a resumed run continues the same W&B run.
        name: Shown name.
        config: The resolved submission.
    """

    def __init__(self, mode: str, folder: Path, run_id: str, name: str, config: Mapping[str, Any]) -> None:
        self._run: Any = None
        if mode == "disabled":
            return
        try:
            os.environ.setdefault("WANDB_SILENT", "true")
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
            import wandb

            if mode == "online" and not wandb.login(prompt=False):
                mode = "offline"
            self._run = wandb.init(
                mode=mode,  # type: ignore[arg-type]
                project="placeholder-harness",
                dir=str(folder),
                id=run_id,
                name=name,
                resume="allow" if mode == "online" else None,
                config=dict(config),
                settings=wandb.Settings(silent=True, console="off"),
            )
        except Exception as error:
            # Whatever W&B's trouble is (network, disk, version), the run is worth more than its log.
            self._fail(error)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """A point of the learning curves."""
        if self._run is not None:
            try:
                self._run.log(dict(values), step=step)
            except Exception as error:
                self._fail(error)

    def finish(self, record: Record, results: Mapping[str, Result], gallery: Mapping[str, bytes]) -> None:
        """What the board shows of the run, its pictures included; closes the W&B run.

        Args:
            record: The run's record.
            results: Statistics by card, for intervals.
            gallery: The pictures, from `harness.gallery.make_gallery`.
        """
        if self._run is not None:
            try:
                ends = intervals(results)
                self._run.summary.update(summary(record, ends))
                self._run.log({**tables(record, ends), **examples(gallery)})
                self._run.finish()
            except Exception as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._run = None
        warnings.warn(f"W&B logging stopped ({type(error).__name__}: {error}); the run goes on", stacklevel=2)
