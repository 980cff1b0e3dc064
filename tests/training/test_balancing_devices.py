"""A method on the tasks' gradients in two processes, through the real command."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_devices import ONE, TWO, assert_close, cache, exact, finish, record

__all__ = ["cache"]  # a fixture
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["upgrad", "gradnorm"])
def test_two_processes_end_in_the_weights_of_one(tmp_path: Path, cache: Path, name: str) -> None:
    raw = exact(balancing={"name": name})
    finish(tmp_path / "one", cache, raw, ONE)
    finish(tmp_path / "two", cache, raw, TWO)
    assert_close(tmp_path / "one", tmp_path / "two")
    curves, again = record(tmp_path / "one")["curves"], record(tmp_path / "two")["curves"]
    assert curves.keys() == again.keys()
    assert any(curve.startswith("weight/") for curve in curves)
    for curve, points in curves.items():
        assert dict(again[curve]) == pytest.approx(dict(points), rel=2e-2, abs=1e-3), curve


def test_parts_end_in_the_weights_of_whole_batches(tmp_path: Path, cache: Path) -> None:
    finish(tmp_path / "whole", cache, exact(balancing={"name": "log"}), ONE)
    finish(tmp_path / "parts", cache, exact(balancing={"name": "log"}, accumulation=2), ONE)
    assert_close(tmp_path / "whole", tmp_path / "parts")
