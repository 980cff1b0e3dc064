"""Training a recorded entry again, and marking it as rerun where its numbers come out again."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from harness.atomic import locked, make_folder
from harness.board.agreement import RULES, TaskAgreement, agreement
from harness.board.records import Record, Rerun, find_entry, read_records, read_statistics, write_records
from harness.board.text import percent
from harness.documents import parse
from harness.errors import HarnessError
from harness.models.weight_files import weights_digest
from harness.progress import Reporter
from harness.submission import Submission
from harness.training.config import TrackingConfig
from harness.training.devices import world
from harness.training.placeholders.objectives.config import TEACHER_WEIGHTS

DISAGREED = "disagreed"


class RerunOutcome(BaseModel):
    """What training an entry again gave.

    Attributes:
        entry: ``name@fingerprint``.
        seeds: The seeds that were trained again: all of the entry.
        tasks: Each task, stored and rerun.
        parameters: Number of parameters, stored and rerun.
        kept: Where the rerun's records lie, if it does not agree.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    entry: str
    seeds: list[int]
    tasks: list[TaskAgreement]
    parameters: tuple[int | None, int | None]
    kept: str | None = None

    @property
    def agrees(self) -> bool:
        """Whether every task does, and the network is as large as the records say."""
        return all(task.agrees for task in self.tasks) and self.parameters[0] == self.parameters[1]

    def sentences(self) -> list[str]:
        """The outcome in words, one sentence for each task."""
        found = []
        for task in self.tasks:
            verdict = "agrees" if task.agrees else f"differs ({task.reason})" if task.reason else "differs"
            span = "" if task.low == task.high else f", allowed {percent(task.low)} to {percent(task.high)}"
            found.append(
                f"{self.entry}: {task.card}: {verdict}: stored {percent(task.stored)}, rerun {percent(task.rerun)}"
                f"{span} ({RULES[task.rule]})"
            )
        if self.parameters[0] != self.parameters[1]:
            found.append(f"{self.entry}: parameters: stored {self.parameters[0]}, rerun {self.parameters[1]}")
        found.append(
            f"{self.entry}: trust is now rerun"
            if self.agrees
            else f"{self.entry}: nothing was changed; the rerun's records are in {self.kept}"
        )
        return found


def rerun_entry(entry: str, board: Path, runs: Path, weights: str | Path | None, reporter: Reporter) -> RerunOutcome:
    """Train all seeds of an entry again and compare. Interrupted, the same call resumes.

    Args:
        entry: Its name, or ``name@fingerprint``.
        board: The board's folder.
        runs: The reruns are made in ``rerun-<fingerprint>/`` below it, never from what an earlier run left in it.
        weights: The local weights that the backbone starts from, where the submission names such.
        reporter: Shows progress.

    Returns:
        The comparison. The records are marked as rerun if it agrees, all or none, and untouched otherwise.

    Raises:
        HarnessError: The records hold no submission or one that gives another run here, data is missing, or the
            records changed meanwhile.
    """
    from harness.runs import run

    if world() > 1:
        raise HarnessError(f"rerun: {world()} processes were started; start one, it trains one seed after the other")
    stored = find_entry(read_records(board), entry)
    submissions = [_submission(record, weights) for record in stored]
    scratch = runs / f"rerun-{stored[0].fingerprint}"
    make_folder(board / "records")  # told before hours of training
    make_folder(scratch)
    with locked(scratch):
        shutil.rmtree(scratch / DISAGREED, ignore_errors=True)
        again = [
            run(submission, record.seed, scratch / "runs", scratch / "leaderboard", reporter)
            for submission, record in zip(submissions, stored, strict=True)
        ]
        results = [read_statistics(scratch / "leaderboard", record) for record in again]
        outcome = RerunOutcome(
            entry=stored[0].entry,
            seeds=[record.seed for record in stored],
            tasks=agreement(stored, again, results),
            parameters=(stored[0].cost.parameters, again[0].cost.parameters),
            kept=str(scratch / DISAGREED),
        )
        if outcome.agrees:
            outcome = outcome.model_copy(update={"kept": None})
            _promote(board, stored, again, outcome)
        else:
            (scratch / "leaderboard").rename(scratch / DISAGREED)
        for folder in ("runs", "leaderboard"):  # the next rerun is a run of its own
            shutil.rmtree(scratch / folder, ignore_errors=True)
    return outcome


def _submission(record: Record, weights: str | Path | None) -> Submission:
    """What the record was made from, if this installation makes the same run of it."""
    if record.submission is None:
        raise HarnessError(
            f"{record.id}: submission: there is none, its predictions were handed in; only what was trained by a "
            "submission can be trained again"
        )
    submission = parse(Submission, record.submission, f"{record.id}: submission")
    backbone = submission.model.backbone
    if TEACHER_WEIGHTS in submission.local_weights():
        raise HarnessError(
            f"{record.id}: {TEACHER_WEIGHTS}: a rerun cannot be given the local weights of a teacher; train it with "
            "harness submit, and compare the two"
        )
    if backbone.weights is not None:
        if weights is None:
            raise HarnessError(f"{record.id}: model.backbone.weights: {backbone.weights!r}; name the file by --weights")
        digest = weights_digest(str(weights))
        if not backbone.weights.endswith(digest):
            raise HarnessError(f"--weights {weights}: has SHA-256 {digest}, the record names {backbone.weights!r}")
        backbone = backbone.model_copy(update={"weights": str(weights)})
        submission = submission.model_copy(update={"model": submission.model.model_copy(update={"backbone": backbone})})
    elif weights is not None:
        raise HarnessError(
            f"--weights {weights}: the submission of {record.id} starts from no local weights; leave it out"
        )
    submission = submission.model_copy(update={"tracking": TrackingConfig(wandb="disabled")})
    if submission.fingerprint() != record.fingerprint:
        raise HarnessError(
            f"{record.id}: fingerprint: its submission has {submission.fingerprint()} here, under other cards or "
            "another version; rerun it with those that it was made with"
        )
    return submission


def _promote(board: Path, stored: Sequence[Record], again: Sequence[Record], outcome: RerunOutcome) -> None:
    """Mark records as rerun, all or none, unless they are others by now."""
    items = []
    for record, rerun in zip(stored, again, strict=True):
        evidence = Rerun(
            identical=all(task.statistics == rerun.tasks[card].statistics for card, task in record.tasks.items()),
            values={card: task.value for card, task in rerun.tasks.items()},
            rule="; ".join(sorted({task.rule for task in outcome.tasks})),
            provenance=rerun.provenance,
        )
        results = read_statistics(board, record)
        statistics = {card: result.statistics for card, result in results.items()}
        items.append((record.model_copy(update={"trust": "rerun", "rerun": evidence}), statistics))
    write_records(board, items)
