"""What processes that load data say on their own."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace

import pytest

from harness.data import workers


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), BrokenPipeError(32, "broken"), EOFError()])
def test_a_loader_says_nothing_where_its_parent_left_in_the_middle_of_a_batch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    forever = SimpleNamespace(join=threading.Event().wait)
    monkeypatch.setattr(workers, "parent_process", lambda: forever)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    workers.end_with_parent()
    sys.excepthook(type(error), error, None)
    assert capsys.readouterr().err == ""
    sys.excepthook(ValueError, ValueError("wrong"), None)
    assert "ValueError: wrong" in capsys.readouterr().err


def test_a_process_without_a_parent_keeps_its_way_of_showing_errors() -> None:
    before = sys.excepthook
    workers.end_with_parent()
    assert sys.excepthook is before
