"""The table of jobs on a terminal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.table import Table
from rich.text import Text

from harness.launching.jobs import Job, Running

State = Literal["running", "stopping", "queued", "waiting", "failed", "interrupted", "done"]
STYLES: dict[State, str] = {  # in the order in which rows matter where not all have room
    "running": "cyan",
    "stopping": "yellow",
    "failed": "red",
    "interrupted": "yellow",
    "queued": "blue",
    "waiting": "dim",
    "done": "green",
}
BAR = 20  # characters
FRAME = 4  # lines around the rows


@dataclass
class Status:
    """How a job stands.

    Attributes:
        job: The job.
        state: Where it is; a job is queued while a scheduler has it and it has not begun.
        place: Number of the place that it takes while it is under way.
        running: Its handle while it is under way.
        log_size: Size of its log when it was handed over; it has begun when that grows.
        begun: When it began, in seconds since the epoch.
        seconds: How long it took; 0 if it was done before.
    """

    job: Job
    state: State = "waiting"
    place: int = -1
    running: Running | None = None
    log_size: int = 0
    begun: float = 0.0
    seconds: float = 0.0


def counts(statuses: Sequence[Status]) -> str:
    """How many jobs are in which state, e.g. ``1 running, 2 done``."""
    found = Counter(status.state for status in statuses)
    return ", ".join(f"{found[state]} {state}" for state in STYLES if found[state])


def table(statuses: Sequence[Status], height: int) -> Table:
    """Jobs, their states and how far they are.

    Args:
        statuses: All jobs.
        height: Lines that there is room for; where not all jobs fit, those that matter most are shown.
    """
    room = max(1, height - FRAME)
    order = list(STYLES)
    chosen = sorted(range(len(statuses)), key=lambda index: order.index(statuses[index].state))[:room]
    hidden = len(statuses) - len(chosen)
    title = counts(statuses) + (f" ({hidden} not shown)" if hidden else "")
    shown = Table(title=Text(title, style="bold"), title_justify="left", box=None, padding=(0, 2, 0, 0))
    names = Counter((status.job.submission.name, status.job.seed) for status in statuses)
    rows = []
    for index in sorted(chosen):
        status = statuses[index]
        job = status.job
        version = f"@{job.fingerprint}" if names[job.submission.name, job.seed] > 1 else ""
        run = Text(f"{job.submission.name}{version} seed {job.seed}")
        rows.append((run, Text(status.state, style=STYLES[status.state]), Text(_clock(status)), _progress(status)))
    for index, heading in enumerate(("run", "state", "time", "progress")):
        # A long error gives way to the other columns.
        width = max(len(heading), *(len(row[index]) for row in rows)) if heading != "progress" else None
        justify: Literal["left", "right"] = "right" if heading == "time" else "left"
        shown.add_column(heading, justify=justify, no_wrap=True, min_width=width)
    for row in rows:
        shown.add_row(*row)
    return shown


def _clock(status: Status) -> str:
    if status.running is not None and status.state != "queued":
        seconds = time.time() - status.begun
    elif status.seconds:
        seconds = status.seconds
    else:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _progress(status: Status) -> Text:
    if status.state == "failed":
        return Text(status.job.last_words(), overflow="ellipsis")
    if status.state not in ("running", "stopping", "interrupted"):
        return Text("")
    # What an earlier run left counts only where it is gone on with.
    since = status.begun if status.job.fresh else 0.0
    if status.job.trained(since):
        return Text("trained, predicting")
    step = status.job.step(since)
    if step is None:
        return Text("starting" if status.state == "running" else "")
    filled = min(BAR, BAR * step // status.job.steps)
    return Text(f"{'━' * filled}{'╌' * (BAR - filled)} step {step:,} of {status.job.steps:,}")
