"""Small charts as inline SVG. Colours come from the page's style sheet through classes, so they follow its theme."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from markupsafe import Markup

from harness.board.text import DASH, points

Curve = Sequence[tuple[int, float | None]]

LINES = 6  # seeds that are told apart by their line's class
MAX_POINTS = 240  # per line; more than the plot has pixels


def reach(ends: Iterable[float]) -> float:
    """How far a scale goes on which bars can be compared: to the furthest end, but at most twice the upper quartile.

    One bar far out, as that of a network that learned nothing, would otherwise make dots of all others.

    Args:
        ends: How far from the scale's middle each bar goes, at least 0.
    """
    sizes = sorted(ends)
    quartile = sizes[3 * len(sizes) // 4] if sizes else 0.0
    return min(sizes[-1], 2 * quartile) if quartile else max(sizes, default=0.0)


def interval_bar(value: float, low: float, high: float, scale: tuple[float, float]) -> Markup:
    """A number with its interval on a scale that all rows of a column share; an arrow if it lies beyond the scale."""
    width, height = 116, 14
    x = _scaled(scale, 4, width - 4)
    dot = _beyond(value, scale, (4, width - 4), 7) or Markup('<circle class="dot" cx="{}" cy="7" r="4"/>').format(
        _n(x(value))
    )
    return Markup(
        '<svg class="bar" viewBox="0 0 {w} {h}" width="{w}" height="{h}" aria-hidden="true">'
        '<line class="axis" x1="0" x2="{w}" y1="7" y2="7"/><line class="range" x1="{low}" x2="{high}" y1="7" y2="7"/>'
        "{dot}</svg>"
    ).format(w=width, h=height, low=_n(x(low)), high=_n(x(high)), dot=dot)


def forest_bar(
    difference: float, low: float, high: float, extent: float, clear: bool, less_is_better: bool = False
) -> Markup:
    """A paired difference with its interval around a zero line; `extent` is the scale's end on both sides."""
    kind = ("better" if (difference > 0) is not less_is_better else "worse") if clear else "open"
    label = f"{points(difference)} points, 95% interval {points(low)} to {points(high)}"
    return _around_zero((difference, low, high), extent, kind, label)


def relative_bar(change: Mapping[str, float], extent: float) -> Markup:
    """Δm in percent with its interval around a zero line, filled where the interval excludes 0."""
    value, low, high = change["value"], change["low"], change["high"]
    kind = "better" if low > 0 else "worse" if high < 0 else "open"
    label = f"{value:+.2f} percent, 95% interval {low:+.2f} to {high:+.2f}"
    return _around_zero((value, low, high), extent, kind, label)


def _around_zero(values: tuple[float, float, float], extent: float, kind: str, label: str) -> Markup:
    width, height = 150, 20
    x = _scaled((-extent, extent), 5, width - 5)
    value, low, high = (x(number) for number in values)
    dot = _beyond(values[0], (-extent, extent), (5, width - 5), 10) or Markup(
        '<rect class="dot" x="{}" y="6" width="8" height="8" rx="2"/>'
    ).format(_n(value - 4))
    return Markup(
        '<svg class="forest {kind}" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="{label}">'
        '<line class="zero" x1="{zero}" x2="{zero}" y1="0" y2="{h}"/>'
        '<line class="range" x1="{low}" x2="{high}" y1="10" y2="10"/>'
        "{dot}</svg>"
    ).format(kind=kind, w=width, h=height, label=label, zero=_n(x(0)), low=_n(low), high=_n(high), dot=dot)


def _beyond(value: float, scale: tuple[float, float], ends: tuple[int, int], middle: int) -> Markup:
    """An arrow at the end of the scale that a number lies beyond; nothing if it lies on the scale."""
    if scale[0] <= value <= scale[1]:
        return Markup()
    tip, way = (ends[0], 1) if value < scale[0] else (ends[1], -1)
    corners = f"{tip - 4 * way},{middle} {tip + 4 * way},{middle - 5} {tip + 4 * way},{middle + 5}"
    return Markup('<polygon class="dot" points="{}"/>').format(corners)


def line_plot(name: str, curves: Mapping[int, Curve]) -> Markup:
    """A learning curve, one line per seed, with the ends of both axes written out."""
    width, height, left, right, top, bottom = 260, 110, 44, 8, 8, 18
    known = {seed: [(step, v) for step, v in curve if v is not None] for seed, curve in curves.items()}
    steps = [step for curve in known.values() for step, _ in curve]
    values = [value for curve in known.values() for _, value in curve]
    if not values:
        return Markup('<p class="empty">no finite values</p>')
    x = _scaled((min(steps), max(steps)), left, width - right)
    y = _scaled((min(values), max(values)), height - bottom, top)
    lines = Markup("").join(
        Markup('<polyline class="line line-{n}" points="{p}"/>').format(
            n=n % LINES, p=" ".join(f"{_n(x(step))},{_n(y(value))}" for step, value in _thin(curve))
        )
        for n, curve in enumerate(known.values())
        if curve
    )
    return Markup(
        '<svg class="plot" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="{label}">'
        '<path class="axis" d="M{left},{top}V{base}H{end}"/>'
        '<text class="tick" x="{tick}" y="{high_y}" text-anchor="end">{high}</text>'
        '<text class="tick" x="{tick}" y="{base}" text-anchor="end">{low}</text>'
        '<text class="tick" x="{left}" y="{h}" dy="-4">{first}</text>'
        '<text class="tick" x="{end}" y="{h}" dy="-4" text-anchor="end">{last}</text>{lines}</svg>'
    ).format(
        w=width,
        h=height,
        label=f"{name}: from {values[0]:.4g} to {values[-1]:.4g} over {max(steps):,} steps",
        left=left,
        top=top,
        base=height - bottom,
        end=width - right,
        tick=left - 5,
        high_y=top + 8,
        high=f"{max(values):.3g}",
        low=f"{min(values):.3g}",
        first=f"{min(steps):,}",
        last=f"{max(steps):,}",
        lines=lines,
    )


def _scaled(domain: tuple[float, float], start: float, end: float) -> Callable[[float], float]:
    """A linear map of a range to pixels; a range without width maps to the middle."""
    low, high = domain

    def to_pixels(value: float) -> float:
        share = (value - low) / (high - low) if high > low else 0.5
        return start + (end - start) * min(1.0, max(0.0, share))

    return to_pixels


def _thin(curve: Sequence[tuple[int, float]]) -> Sequence[tuple[int, float]]:
    """Every n-th point and the last one."""
    stride = -(-len(curve) // MAX_POINTS)
    return [*curve[:-1:stride], curve[-1]]


def _n(value: float) -> str:
    """A coordinate with one decimal, and no minus zero."""
    return f"{value + 0.0:.1f}".removesuffix(".0") if math.isfinite(value) else DASH
