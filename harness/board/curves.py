"""The learning curves of one run as a page of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from markupsafe import Markup

from harness.board.charts import Curve, line_plot
from harness.board.text import printable

_STYLE = Markup("""
:root { color-scheme: light dark; --text: #1c2329; --soft: #5b6770; --line: #1f6feb; --axis: #c6ced5; --page: #fff }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e9ed; --soft: #98a5af; --line: #6cb0ff; --axis: #3c4750; --page: #14191d }
}
body { margin: 2rem; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.3rem } h2 { font-size: 1rem; color: var(--soft); font-weight: 600 }
.plots { display: flex; flex-wrap: wrap; gap: .8rem 1rem } figure { margin: 0 }
figcaption { font-size: 13px } svg { display: block; overflow: visible }
.axis { fill: none; stroke: var(--axis) } .line { fill: none; stroke: var(--line); stroke-width: 1.8 }
.tick { fill: var(--soft); font-size: 11px }
""")


def curves_page(title: str, curves: Mapping[str, Curve]) -> str:
    """An HTML page of small charts, one per curve, without scripts.

    Args:
        title: Of the run.
        curves: (step, value) by name; names with a slash are grouped by what stands before it.
    """
    names = sorted(curves, key=lambda name: (place(name), name))
    groups = [(kind, list(members)) for kind, members in groupby(names, key=group)]
    sections = Markup("").join(_section(kind, members, curves) for kind, members in groups)
    if not curves:
        sections = Markup("<p>No point yet.</p>")
    return str(
        Markup(
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            "<title>{title}</title><style>{style}</style></head><body><h1>{title}</h1>{sections}</body></html>\n"
        ).format(title=printable(title), style=_STYLE, sections=sections)
    )


def _section(kind: str, names: Sequence[str], curves: Mapping[str, Curve]) -> Markup:
    figures = Markup("").join(
        Markup("<figure><figcaption>{name}</figcaption>{plot}</figure>").format(
            name=printable(name.partition("/")[2] or name.replace("_", " ")), plot=line_plot(name, {0: curves[name]})
        )
        for name in names
    )
    return Markup('<h2>{kind}</h2><div class="plots">{figures}</div>').format(
        kind=printable(kind.replace("_", " ")), figures=figures
    )


def group(name: str) -> str:
    """What a curve's name says before its slash."""
    return name.partition("/")[0] if "/" in name else "run"


def place(name: str) -> int:
    """A curve's place among the others: what is learned comes first, what it costs last."""
    order = (
        *("loss", "placeholder", "samples", "selection", "stage", "weight", "cosine", "affinity", "substitution"),
        *("gate", "run", "seconds"),
    )
    return order.index(group(name)) if group(name) in order else len(order)
