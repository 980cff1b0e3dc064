"""Progress for people: bars on a terminal, a line every few seconds in a log file."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console, RenderableType
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
from rich.table import Table
from rich.text import Text

from harness.board.text import printable

LINE_EVERY = 15.0  # seconds between lines where there is no terminal
# Times a second that bars are drawn: drawing takes milliseconds of Python, for which small networks have to wait.
REFRESH = 2


class _Rate(ProgressColumn):
    """Units per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="progress.data.speed")


class _Display(Progress):
    """Bars, and below them rows of text."""

    rows: Mapping[str, str] = {}

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.rows:
            table = Table.grid(padding=(0, 2))
            for name, text in self.rows.items():
                table.add_row(Text(f"  {name}"), Text(text, style="dim"))
            yield table


class Reporter:
    """Shows what is going on.

    Args:
        console: Where to; a terminal gets bars, anything else lines.
        quiet: Show nothing.
    """

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self.console = console or Console(stderr=True)
        self.quiet = quiet
        self._display: _Display | None = None

    def say(self, text: str) -> None:
        """One line; rich markup is not interpreted."""
        if not self.quiet:
            self.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def bar(self, label: str, total: int, start: int = 0) -> Iterator[Bar]:
        """A bar for the time of a block. Inside of another one's block it stands below that one and goes when done.

        Args:
            label: What is done.
            total: How many units there are.
            start: How many were done before.
        """
        if self.quiet or not self.console.is_terminal:
            yield Bar(self, label, total, start)
            return
        if self._display is not None:
            task = self._display.add_task(label, total=total, completed=start, detail="")
            yield Bar(self, label, total, start, self._display, task)
            self._display.remove_task(task)
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
        with _Display(*columns, console=self.console, refresh_per_second=REFRESH) as self._display:
            try:
                task = self._display.add_task(label, total=total, completed=start, detail="")
                yield Bar(self, label, total, start, self._display, task)
            finally:
                self._display = None


class Bar:
    """One running bar."""

    def __init__(
        self,
        reporter: Reporter,
        label: str,
        total: int,
        start: int,
        display: _Display | None = None,
        task: TaskID | None = None,
    ) -> None:
        self._reporter, self._label, self._total = reporter, label, total
        self._done = self._start = start
        self._display, self._task = display, task
        self._images: dict[str, int] = {}
        self._rows: dict[str, str] = {}
        self._begun = self._last = time.monotonic()

    def advance(
        self,
        units: int = 1,
        detail: str = "",
        values: Mapping[str, float] | None = None,
        images: Mapping[str, int] | None = None,
    ) -> None:
        """Some units more are done.

        Args:
            units: How many.
            detail: Stands behind the bar.
            values: A number by name that is worth a look, such as a task's loss.
            images: For each of these names how many images went into these units.
        """
        self._done += units
        now = time.monotonic()
        passed = max(now - self._begun, 1e-9)
        for name, value in (values or {}).items():
            self._images[name] = self._images.get(name, 0) + (images or {}).get(name, 0)
            rate = self._images[name] / passed
            self._rows[name] = f"{value:.3f}" + (f", {rate:,.{1 if rate < 100 else 0}f} images/s" if rate else "")
        if self._display is not None and self._task is not None:
            fields = {"detail": detail} if detail else {}
            self._display.update(self._task, advance=units, **fields)  # type: ignore[arg-type]
            if values:
                self._display.rows = self._rows
            return
        if self._done < self._total and now - self._last < LINE_EVERY:
            return
        self._last = now
        rate = (self._done - self._start) / passed
        eta = (self._total - self._done) / rate if rate else 0.0
        rows = "".join(f"; {name} {text}" for name, text in self._rows.items())
        line = f"{self._label}: {self._done}/{self._total}, {rate:.1f}/s, eta {eta:.0f} s {detail}".rstrip()
        self._reporter.say(line + rows)
