"""Progress on a terminal and in a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from harness import progress
from harness.progress import Reporter


def shown(terminal: bool, width: int = 100) -> tuple[Reporter, io.StringIO]:
    stream = io.StringIO()
    return Reporter(Console(file=stream, force_terminal=terminal, width=width, color_system=None)), stream


def test_a_log_gets_a_line_at_the_end_with_every_task(monkeypatch: pytest.MonkeyPatch) -> None:
    reporter, stream = shown(terminal=False)
    with reporter.bar("training", 3) as bar:
        for step in range(3):
            bar.advance(values={"a": 0.5 + step, "b": 2.0}, images={"a": 4, "b": 2})
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("training: 3/3, ")
    assert "; a 2.500, " in line
    assert line.endswith(" images/s")


def test_a_log_gets_a_line_every_so_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    reporter, stream = shown(terminal=False)
    with reporter.bar("reading", 4) as bar:
        for _ in range(4):
            bar.advance(detail="x.png")
    assert [line.split(",")[0] for line in stream.getvalue().splitlines()] == [f"reading: {n}/4" for n in range(1, 5)]
    assert stream.getvalue().splitlines()[0].endswith(" x.png")


def test_a_terminal_shows_the_run_a_row_for_each_task_and_bars_inside() -> None:
    reporter, stream = shown(terminal=True)
    with reporter.bar("training", 10, 5) as bar:
        bar.advance(values={"shapes-vqa": 1.25}, images={"shapes-vqa": 8})
        with reporter.bar("predicting", 2) as inner:
            inner.advance()
            reporter.say("selection at step 6")
        bar.advance(values={"shapes-vqa": 1.0}, images={"shapes-vqa": 8})
    text = stream.getvalue()
    for wanted in ("6/10", "7/10", "shapes-vqa", "1.000, ", "images/s", "predicting", "selection at step 6"):
        assert wanted in text, wanted
    assert "predicting" not in text[text.rindex("training") :]
    with reporter.bar("another", 1) as bar:
        bar.advance()
    assert "another" in stream.getvalue()


def test_what_a_strangers_record_says_moves_no_cursor_and_colours_nothing() -> None:
    reporter, stream = shown(terminal=True)
    reporter.say("note: \x1b[2J\x1b]0;title\x07\u202ewarning\x9b31m")
    assert stream.getvalue() == "note: warning\n"
