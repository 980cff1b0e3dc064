"""What the parts of a study's report have in common: rows of Markdown, and bars on a scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from markupsafe import Markup

from harness.board import charts


def row(cells: Iterable[str]) -> str:
    """A row of a Markdown table; cells from outside are to be escaped."""
    return f"| {' | '.join(cells)} |"


def extent(bars: Iterable[Mapping[str, Any]]) -> float:
    """The end, on both sides of zero, of a scale for some intervals."""
    return charts.reach(max(abs(bar["low"]), abs(bar["high"])) for bar in bars)


def clear(one: Mapping[str, Any]) -> bool:
    """Whether a verdict says more than that nothing is known."""
    return bool(one["verdict"] != "not told apart")


def forest(one: Mapping[str, Any], reach: float, filled: bool) -> Markup:
    """A difference with its interval around a zero line."""
    return charts.forest_bar(one["difference"], one["low"], one["high"], reach, filled)
