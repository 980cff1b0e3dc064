"""A method on the tasks' gradients in two processes, through the real command."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_devices import assert_close, cache, exact
from tests_runs import in_this_process, in_two_processes

__all__ = ["cache"]  # a fixture
pytestmark = pytest.mark.slow


def test_two_processes_end_in_the_weights_of_one(tmp_path: Path, cache: Path) -> None:
    raws = {name: exact(balancing={"name": name}) for name in ("upgrad", "gradnorm")}
    one = in_this_process(tmp_path / "one", cache, raws)
    two = in_two_processes(tmp_path / "two", cache, raws)
    for name in raws:
        assert_close(one[name], two[name])
        curves, again = one[name].record["curves"], two[name].record["curves"]
        assert curves.keys() == again.keys()
        assert any(curve.startswith("weight/") for curve in curves)
        for curve, points in curves.items():
            assert dict(again[curve]) == pytest.approx(dict(points), rel=2e-2, abs=1e-3), (name, curve)


def test_parts_end_in_the_weights_of_whole_batches(tmp_path: Path, cache: Path) -> None:
    raws = {f"parts-{parts}": exact(balancing={"name": "log"}, accumulation=parts) for parts in (1, 2)}
    whole, divided = in_this_process(tmp_path, cache, raws).values()
    assert_close(whole, divided)
