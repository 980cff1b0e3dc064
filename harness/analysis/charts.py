"""Pictures of an analysis as inline SVG. Colours come from the style sheet through classes and follow its theme."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

LEVELS = 5  # of a heat map's colour
MARKS = 6  # tasks that are told apart by colour and shape
_SHAPES = (
    "M-3,0a3,3 0 1,0 6,0a3,3 0 1,0 -6,0",  # disc
    "M-2.7,-2.7h5.4v5.4h-5.4z",  # square
    "M0,-3.6L3.4,2.6H-3.4z",  # triangle
    "M0,-3.8L3.8,0L0,3.8L-3.8,0z",  # diamond
    "M-3.2,-1h2.2v-2.2h2v2.2h2.2v2h-2.2v2.2h-2v-2.2h-2.2z",  # cross
    "M0,3.6L3.4,-2.6H-3.4z",  # triangle upside down
)


def heat(value: float | None, extent: float) -> str:
    """Class of a cell: ``p0`` to ``p5`` for numbers up to `extent`, ``n0`` to ``n5`` for those below 0."""
    if value is None or not math.isfinite(value) or not extent > 0:
        return "p0"
    level = min(LEVELS, math.ceil(LEVELS * abs(value) / extent - 1e-9))
    return f"{'n' if value < 0 else 'p'}{level}"


def points(groups: Mapping[str, Sequence[Sequence[float]]], label: str) -> Markup:
    """Points in the plane, a mark and a colour per group; both axes have one scale.

    Args:
        groups: (x, y) by name.
        label: For who cannot see it.
    """
    width, height, edge = 560, 420, 14
    every = [point for group in groups.values() for point in group]
    lows = [min(point[axis] for point in every) for axis in (0, 1)]
    spans = [max(point[axis] for point in every) - low for axis, low in enumerate(lows)]
    scale = min(
        (side - 2 * edge) / span if span > 0 else math.inf for side, span in zip((width, height), spans, strict=True)
    )
    scale = scale if math.isfinite(scale) else 1.0
    starts = [(side - span * scale) / 2 for side, span in zip((width, height), spans, strict=True)]
    marks = Markup("").join(
        Markup('<path class="mark mark-{n}" transform="translate({x} {y})" d="{shape}"/>').format(
            n=number % MARKS,
            x=_n(starts[0] + scale * (point[0] - lows[0])),
            y=_n(height - starts[1] - scale * (point[1] - lows[1])),
            shape=_SHAPES[number % MARKS],
        )
        for number, group in enumerate(groups.values())
        for point in group
    )
    return Markup('<svg class="cloud" viewBox="0 0 {w} {h}" role="img" aria-label="{label}">{marks}</svg>').format(
        w=width, h=height, label=label, marks=marks
    )


def mark(number: int) -> Markup:
    """A group's mark, for the legend."""
    return Markup(
        '<svg class="key" viewBox="-6 -6 12 12" width="14" height="14" aria-hidden="true">'
        '<path class="mark mark-{n}" d="{shape}"/></svg>'
    ).format(n=number % MARKS, shape=_SHAPES[number % MARKS])


def bars(shares: Sequence[float]) -> Markup:
    """Shares of a whole side by side; the line is where all would be equal."""
    step = max(2.0, min(9.0, 180 / len(shares)))
    width, height = step * len(shares), 34
    most = max(max(shares), 1.5 / len(shares))
    drawn = Markup("").join(
        Markup('<rect x="{x}" y="{y}" width="{w}" height="{h}"><title>token {token}: {share}%</title></rect>').format(
            x=_n(number * step),
            y=_n(height * (1 - share / most)),
            w=_n(step - 1),
            h=_n(height * share / most),
            token=number,
            share=f"{100 * share:.1f}",
        )
        for number, share in enumerate(shares)
    )
    return Markup(
        '<svg class="mass" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="{label}">{drawn}'
        '<line x1="0" x2="{w}" y1="{y}" y2="{y}"/></svg>'
    ).format(
        w=_n(width),
        h=height,
        label=f"largest share {100 * max(shares):.1f}%, smallest {100 * min(shares):.1f}%",
        drawn=drawn,
        y=_n(height * (1 - 1 / len(shares) / most)),
    )


def _n(value: float) -> str:
    return f"{value + 0.0:.1f}".removesuffix(".0")
