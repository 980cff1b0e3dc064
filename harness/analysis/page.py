"""An analysis as JSON and as one page that needs no network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from harness.analysis import charts
from harness.atomic import json_bytes, make_folder, write_bytes
from harness.board.charts import forest_bar, line_plot
from harness.board.templating import digest, environment, read
from harness.board.text import DASH, percent, points, printable

JSON, PAGE = "analysis.json", "analysis.html"

_CONTROLS = {
    "mean": "each token's mean over the images",
    "zero": "all tokens are zeros",
    "shuffle": "tokens of another image",
    "swap": "tokens of images of {}",
}


def write(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``analysis.html`` and ``analysis.json`` (without the pictures); returns the files."""
    make_folder(folder)
    files = {PAGE: html(report).encode(), JSON: json_bytes(document(report))}
    for name, content in files.items():
        write_bytes(folder / name, content)
    return [folder / name for name in files]


def document(report: Mapping[str, Any]) -> dict[str, Any]:
    """What ``analysis.json`` holds: everything but the pictures."""
    return {key: value for key, value in report.items() if key != "maps"}


def html(report: Mapping[str, Any]) -> str:
    """The page; all text from outside is escaped, and nothing runs or is loaded."""
    style = read("style.css", "heat.css", "analysis.css")
    names = list(report["tasks"])
    return (
        environment()
        .get_template("analysis.html")
        .render(
            policy=f"default-src 'none'; img-src data:; style-src '{digest(style)}'; "
            "base-uri 'none'; form-action 'none'",
            style=Markup(style),  # noqa: S704 - the package's own files
            report=report,
            names=names,
            dependency=_dependency(report),
            controls=_controls(report),
            mass={
                name: {site: charts.bars(one["mass"]) if one["mass"] else "" for site, one in sites.items()}
                for name, sites in (report["attention"] or {}).items()
            },
            inserted=any(
                one["to_tokens"] is not None for sites in (report["attention"] or {}).values() for one in sites.values()
            ),
            clouds=_clouds(report),
            similarity=_similarity(report, names),
            gradients=_gradients(report, names),
            affinity=_affinity(report, names),
            interaction=_interaction(report),
        )
    )


def _cell(value: float | None, extent: float, text: str, small: str = "", clear: bool = False, title: str = "") -> Any:
    return {"kind": charts.heat(value, extent), "text": text, "small": small, "bold": clear, "title": title}


def _nothing(text: str = DASH) -> Any:
    return {"kind": "undefined", "text": text, "small": "", "bold": False, "title": ""}


def _table(caption: str, columns: Sequence[str], rows: Iterable[tuple[str, Sequence[Any]]], corner: str = "") -> Any:
    return {"caption": caption, "corner": corner, "columns": list(columns), "rows": list(rows)}


def _extent(values: Iterable[float | None]) -> float:
    return max((abs(value) for value in values if value is not None), default=0.0)


def _estimate(one: Mapping[str, Any], value: float, extent: float) -> Any:
    """A difference in percentage points with its interval."""
    interval = f"{points(one['low'], 1)} to {points(one['high'], 1)}"
    return _cell(value, extent, points(value, 1), interval, one["low"] > 0 or one["high"] < 0)


def _dependency(report: Mapping[str, Any]) -> Any:
    if report["dependency"] is None:
        return None
    tasks = report["dependency"]["tasks"]
    extent = _extent(one["difference"] for found in tasks.values() for one in found)
    most = max(len(found) for found in tasks.values())
    rows = [
        (
            name,
            [
                _cell(
                    one["difference"],
                    extent,
                    points(one["difference"], 1),
                    clear=one["low"] > 0 or one["high"] < 0,
                    title=f"95% interval {points(one['low'])} to {points(one['high'])}",
                )
                for one in found
            ],
        )
        for name, found in tasks.items()
    ]
    return _table("", [str(number) for number in range(most)], rows, "token")


def _controls(report: Mapping[str, Any]) -> list[Any]:
    if report["controls"] is None:
        return []
    every = [one for found in report["controls"].values() for one in found]
    extent = max((max(abs(one["low"]), abs(one["high"])) for one in every), default=0.0)
    return [
        {
            "name": name,
            "lines": [
                one
                | {
                    "text": _CONTROLS[one["control"]].format(one["source"]),
                    "bar": forest_bar(
                        one["difference"], one["low"], one["high"], extent, one["low"] > 0 or one["high"] < 0
                    ),
                }
                for one in found
            ],
        }
        for name, found in report["controls"].items()
    ]


def _clouds(report: Mapping[str, Any]) -> list[Any]:
    picture = report["picture"]
    if picture is None:
        return []
    keys = [(charts.mark(number), name) for number, name in enumerate(picture["pca"]["points"])]
    first, second = (percent(share, 0) for share in picture["pca"]["explained"])
    shown = [("Principal components", f"{first}% of the variance to the right, {second}% upwards.", picture["pca"])]
    if picture["umap"] is not None:
        text = "Neighbours stay neighbours; distances between groups and their sizes mean nothing."
        shown.append(("UMAP", text, picture["umap"]))
    return [
        {"title": title, "text": text, "legend": keys, "drawing": charts.points(one["points"], f"{title} by task")}
        for title, text, one in shown
    ]


def _square(names: Sequence[str], pairs: Iterable[Mapping[str, Any]], caption: str, cell: Any) -> Any:
    found = {frozenset((one["a"], one["b"])): one for one in pairs}
    rows = [
        (a, [cell(found[frozenset((a, b))]) if frozenset((a, b)) in found else _nothing() for b in names])
        for a in names
    ]
    return _table(caption, names, rows)


def _similarity(report: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    if report["similarity"] is None:
        return []

    def cka(one: Mapping[str, Any]) -> Any:
        if one["cka"] is None:
            return _nothing()
        debiased = "" if one["cka_debiased"] is None else f"debiased {one['cka_debiased']:.2f}"
        same = "the very same numbers" if one.get("identical") and one["a"] != one["b"] else ""
        return _cell(one["cka"], 1.0, f"{one['cka']:.2f}", same or debiased, title=debiased)

    def correlation(one: Mapping[str, Any]) -> Any:
        return _nothing() if one["pearson"] is None else _cell(one["pearson"], 1.0, f"{one['pearson']:.2f}")

    extent = _extent(one["information"]["nats"] for one in report["similarity"]["outputs"] if one["information"])

    def shared(one: Mapping[str, Any]) -> Any:
        found = one["information"]
        if found is None:
            return _nothing()
        chance = f"by chance up to {found['null_high']:.2f}"
        clear = found["nats"] > found["null_high"]
        return _cell(max(found["nats"], 0.0), extent, f"{found['nats']:.2f}", chance, clear)

    similarity = report["similarity"]
    tables = [
        _square(names, similarity["features"], "Features, linear CKA", cka),
        _square(names, similarity["outputs"], "Outputs, linear CKA", cka),
        _square(names, similarity["outputs"], "Outputs, mutual information in nats", shared),
    ]
    if any(one["cka"] is not None for one in similarity["tokens"]):
        tables = [
            _square(names, similarity["tokens"], "Tokens, linear CKA", cka),
            _square(names, similarity["tokens"], "Tokens, Pearson correlation", correlation),
            *tables,
        ]
    return tables


def _gradients(report: Mapping[str, Any], names: Sequence[str]) -> Any:
    gradients = report["gradients"]
    if gradients is None:
        return None

    def cosine(one: Mapping[str, Any]) -> Any:
        known = one["low"] is not None
        interval = f"{one['low']:+.2f} to {one['high']:+.2f}" if known else f"{one['count']} points"
        return _cell(one["mean"], 1.0, f"{one['mean']:+.2f}", interval, known and (one["low"] > 0 or one["high"] < 0))

    return {
        "table": _square(names, gradients["pairs"], "", cosine),
        "curves": [
            (name.partition("/")[2].replace("|", " and "), line_plot(printable(name), {0: curve}))
            for name, curve in sorted(gradients["curves"].items())
        ],
    }


def _affinity(report: Mapping[str, Any], names: Sequence[str]) -> Any:
    known = report["affinity"]
    if not known:
        return None
    extent = _extent(known.values())
    rows = []
    for source in names:
        values = [known.get(f"{source}|{target}") for target in names]
        cells = [_nothing() if value is None else _cell(value, extent, f"{value:+.4f}") for value in values]
        rows.append((source, cells))
    return _table("", names, rows, "step for \N{DOWNWARDS ARROW}, loss of \N{RIGHTWARDS ARROW}")


def _interaction(report: Mapping[str, Any]) -> Any:
    found = report["interaction"]
    if found is None:
        return None
    names = found["tasks"]
    titles = {
        "transfer": "Transfer: with it, minus alone",
        "leave_one_out": "Leave one out: all, minus all but it",
        "shapley": "Shapley value",
    }
    every = [one for key in titles for row in found[key].values() for one in row.values() if one]
    extent = _extent([*(one["value"] for one in every), *(one["value"] for one in found["total"].values() if one)])

    def cell(one: Mapping[str, Any] | None) -> Any:
        return _nothing() if one is None else _estimate(one, one["value"], extent)

    tables = []
    for key, caption in titles.items():
        rows = [
            (source, [_nothing("") if target == source else cell(found[key][source][target]) for target in names])
            for source in names
        ]
        if key == "shapley":
            rows.append(("together", [cell(found["total"][target]) for target in names]))
        if any(cell["text"] not in ("", DASH) for _, cells in rows for cell in cells):
            tables.append(_table(caption, names, rows, "of \N{DOWNWARDS ARROW} to \N{RIGHTWARDS ARROW}"))
    return {"tables": tables, "gains": [(name, one) for name, one in found["loss_gain"].items() if one]}
