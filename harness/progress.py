"""Progress for people: bars on a terminal, a line every few seconds in a log file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LINE_EVERY = 15.0  # seconds between lines where there is no terminal


class _Rate(ProgressColumn):
    """Units per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="progress.data.speed")


class Reporter:
    """Shows what is going on.

    Args:
        console: Where to; a terminal gets bars, anything else lines.
        quiet: Show nothing.
    """

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self.console = console or Console(stderr=True)
        self.quiet = quiet

    def say(self, text: str) -> None:
        """One line; rich markup is not interpreted."""
        if not self.quiet:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def bar(self, label: str, total: int, start: int = 0) -> Iterator[Bar]:
        """A bar for the time of a block.

        Args:
            label: What is done.
            total: How many units there are.
            start: How many were done before.
        """
        if self.quiet or not self.console.is_terminal:
            yield Bar(self, label, total, start)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", style="dim"),
        )
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(label, total=total, completed=start, detail="")
            yield Bar(self, label, total, start, progress, task)


class Bar:
    """One running bar."""

    def __init__(
        self,
        reporter: Reporter,
        label: str,
        total: int,
        start: int,
        progress: Progress | None = None,
        task: TaskID | None = None,
    ) -> None:
        self._reporter, self._label, self._total = reporter, label, total
        self._done = self._start = start
        self._progress, self._task = progress, task
        self._begun = self._last = time.monotonic()

    def advance(self, units: int = 1, detail: str = "") -> None:
        """Some units more are done; `detail` stands behind the bar."""
        self._done += units
        if self._progress is not None and self._task is not None:
            fields = {"detail": detail} if detail else {}
            self._progress.update(self._task, advance=units, **fields)  # type: ignore[arg-type]
            return
        now = time.monotonic()
        if self._done < self._total and now - self._last < LINE_EVERY:
            return
        self._last = now
        rate = (self._done - self._start) / max(now - self._begun, 1e-9)
        eta = (self._total - self._done) / rate if rate else 0.0
        self._reporter.say(
            f"{self._label}: {self._done}/{self._total}, {rate:.1f}/s, eta {eta:.0f} s {detail}".rstrip()
        )
