"""The journal of a run: what was measured when, as JSON lines, for W&B, and as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import orjson

from harness.atomic import write_bytes, write_text
from harness.board.curves import curves_page
from harness.training.state import Curves, Progress
from harness.training.tracking import Tracker

LINES = "log.jsonl"
PICTURES = "curves.html"


class Journal:
    """Writes ``log.jsonl`` point by point, and ``curves.html`` from it.

    Args:
        folder: The run's folder.
        title: What the run is called.
        tracker: Gets every point, too.
    """

    def __init__(self, folder: Path, title: str, tracker: Tracker) -> None:
        self._lines, self._pictures = folder / LINES, folder / PICTURES
        self._title, self._tracker = title, tracker

    def resume(self, progress: Progress) -> None:
        """Cut the journal back to the checkpoint that training goes on from, so that nothing is told twice."""
        if self._lines.exists():
            lines = self._lines.read_bytes().splitlines(keepends=True)
            write_bytes(self._lines, b"".join(lines[: progress.points]))

    def add(self, step: int, point: Mapping[str, float]) -> None:
        """A point of the learning curves, with what it cost to get there."""
        with self._lines.open("ab") as file:
            file.write(orjson.dumps({"step": step, **point}, option=orjson.OPT_APPEND_NEWLINE))
        self._tracker.log(step, point)

    def draw(self) -> None:
        """Draw all curves of the journal into a page without scripts."""
        curves: Curves = {}
        for line in self._lines.read_bytes().splitlines() if self._lines.exists() else ():
            try:
                point = orjson.loads(line)
                step = int(point.pop("step"))
            except (AttributeError, LookupError, TypeError, ValueError):  # cut short; the others can still be drawn
                continue
            for name, value in point.items():
                curves.setdefault(name, []).append((step, value))
        write_text(self._pictures, curves_page(self._title, curves))
