"""A study's report as Markdown, as a page and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from markupsafe import Markup

from harness.atomic import json_bytes, make_folder, write_bytes
from harness.board import charts
from harness.board.relative import of_seeds
from harness.board.templating import digest, environment, read
from harness.board.text import duration, percent, points, quantity, safe_markdown
from harness.studies import grid_page, robustness_page
from harness.studies.contrasts import shown_detectable
from harness.studies.parts import clear, extent, forest, row
from harness.studies.power import SIGNIFICANCE

_CHANGES = ("delta_m", "delta_m_single")
_DETECTABLE = (
    "*detectable* is the smallest true difference that the most demanding of the corrected tests would have told apart"
    " with 80% power"
)


def write(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``report.json``, ``report.md`` and ``report.html``; returns the files."""
    make_folder(folder)
    files = {
        "report.json": json_bytes(report),
        "report.md": markdown(report).encode(),
        "report.html": html(report).encode(),
    }
    for name, content in files.items():
        write_bytes(folder / name, content)
    return [folder / name for name in files]


def markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown; whatever names say, they are shown as plain text."""
    lines = [f"# {safe_markdown(report['name'])}", ""]
    if report["description"]:
        lines += [safe_markdown(report["description"]), ""]
    lines += [f"**Rule.** {safe_markdown(report['rule'])}", ""]
    if report["claims"]:
        lines += ["## Claims", "", *_claims(report["claims"]), ""]
    if report["interactions"]:
        lines += ["## Does it do more?", "", *_interactions(report["interactions"]), ""]
    lines += grid_page.markdown(report)
    lines += ["## Verdicts", "", f"In percentage points; {_DETECTABLE}.", ""]
    lines += [f"- {safe_markdown(sentence)}" for sentence in report["verdicts"]]
    cards = _cards(report)
    header = ["arm", *cards, "Δm to baseline", "Δm to single tasks", "seeds", "parameters", "training"]
    lines += ["", "## Arms", "", "Percent, with 95% intervals over images and seeds; below, each seed's number.", ""]
    lines += [row(header), "|" + " --- |" * len(header)]
    for arm in _ran(report):
        cells = [safe_markdown(arm["arm"])]
        for card in cards:
            task = arm["tasks"].get(card)
            cells.append(
                f"{percent(task['value'])} [{percent(task['low'])}, {percent(task['high'])}]"
                f"<br>{' '.join(percent(value, 1) for value in task['seeds'])}"
                if task
                else ""
            )
        cells += [*(_relative(arm[key], arm["seeds"]) for key in _CHANGES), _seeds(arm)]
        cells += [quantity(arm["cost"].get("parameters")), duration(arm["cost"].get("train_seconds"))]
        lines.append(row(cells))
    if waiting := _waiting(report):
        lines += ["", f"Did not run yet: {safe_markdown(waiting)}."]
    lines += ["", "## Differences", ""]
    header = [
        "arm",
        "compared with",
        "task",
        "difference",
        "95% interval",
        "p (Holm)",
        "outcome",
        "detectable",
        "by seed",
    ]
    lines += [
        f"Percentage points on the same images and seeds; {_DETECTABLE}.",
        "",
    ]
    lines += [row(header), "|" + " --- |" * len(header)]
    for one in report["contrasts"]:
        lines.append(
            row(
                [
                    safe_markdown(one["arm"]),
                    safe_markdown(one["against"]),
                    safe_markdown(one["card"]),
                    points(one["difference"]),
                    f"{points(one['low'])} to {points(one['high'])}",
                    f"{one['p_holm']:.3f}",
                    one["verdict"],
                    shown_detectable(one),
                    " ".join(points(value, 1) for value in one["by_seed"]),
                ]
            )
        )
    lines += ["", *robustness_page.markdown(report)]
    return "\n".join(lines).rstrip("\n") + "\n"


def html(report: Mapping[str, Any]) -> str:
    """The report as one page that needs no network; all text from outside is escaped."""
    style = read("style.css", "heat.css", "study.css")
    cards = _cards(report)
    scales = {card: _scale([arm["tasks"][card] for arm in report["arms"] if card in arm["tasks"]]) for card in cards}
    extents = {card: extent(one for one in report["contrasts"] if one["card"] == card) for card in cards}
    changes = extent(arm[key] for arm in report["arms"] for key in _CHANGES if arm[key])
    widest = extent(one for claim in report["claims"] for task in claim["tasks"] for one in task["against"])
    furthest = extent(report["interactions"])
    return (
        environment()
        .get_template("study.html")
        .render(
            policy=f"default-src 'none'; style-src '{digest(style)}'; base-uri 'none'; form-action 'none'",
            style=Markup(style),  # noqa: S704 - the package's own file
            report=report,
            robustness=robustness_page.tables(report),
            grid=grid_page.tables(report),
            grid_note=grid_page.grid_note(report),
            effects_note=grid_page.EFFECTS,
            cards=cards,
            claims=[
                {**claim, "tasks": [_with_bars(task, widest) for task in claim["tasks"]]} for claim in report["claims"]
            ],
            arms=[
                {
                    **arm,
                    "bars": {
                        card: charts.interval_bar(task["value"], task["low"], task["high"], scales[card])
                        for card, task in arm["tasks"].items()
                    },
                    "changes": [
                        (arm[key], charts.relative_bar(arm[key], changes), of_seeds(arm[key], arm["seeds"]))
                        if arm[key]
                        else None
                        for key in _CHANGES
                    ],
                }
                for arm in _ran(report)
            ],
            waiting=_waiting(report),
            runs=(sum(len(arm["seeds"]) for arm in report["arms"]), _planned(report)),
            interactions=[one | {"bar": forest(one, furthest, clear(one))} for one in report["interactions"]],
            contrasts=[
                one | {"bar": forest(one, extents[one["card"]], clear(one)), "detectable": shown_detectable(one)}
                for one in report["contrasts"]
            ],
        )
    )


def _scale(tasks: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Both ends of a scale for what arms reach on a task, around the arm in the middle."""
    middle = median(task["value"] for task in tasks)
    extent = charts.reach(max(middle - task["low"], task["high"] - middle) for task in tasks)
    lowest, highest = min(task["low"] for task in tasks), max(task["high"] for task in tasks)
    return max(lowest, middle - extent), min(highest, middle + extent)


def _with_bars(task: Mapping[str, Any], reach: float) -> dict[str, Any]:
    """A claim's task with a bar for each comparison, filled where the claim is decided and this one shows it."""
    decided = clear(task)
    bars = [forest(one, reach, decided and one["p_value"] < SIGNIFICANCE) for one in task["against"]]
    return {**task, "against": [one | {"bar": bar} for one, bar in zip(task["against"], bars, strict=True)]}


def _claims(claims: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [f"- **{safe_markdown(one['sentence'])}**" for one in claims]
    lines += ["", row(["claim", "task", "outcome", "p (Holm)", "against each", "p of each"]), "|" + " --- |" * 6]
    for number, claim in enumerate(claims, 1):
        for task in claim["tasks"]:
            against = [f"{safe_markdown(one['against'])} {points(one['difference'])}" for one in task["against"]]
            each = [f"{one['p_value']:.3g}" for one in task["against"]]
            cells = [str(number), safe_markdown(task["card"]), task["verdict"], f"{task['p_holm']:.3f}"]
            lines.append(row([*cells, "<br>".join(against), "<br>".join(each)]))
    return lines


def _interactions(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    header = ["question", "task", "here", "there", "difference", "95% interval", "p (Holm)", "outcome", "seeds"]
    lines = [row(header), "|" + " --- |" * len(header)]
    for one in rows:
        cells = [safe_markdown(one["question"]), safe_markdown(one["card"])]
        cells += [points(one[key]) for key in ("first", "second", "difference")]
        cells += [f"{points(one['low'])} to {points(one['high'])}", f"{one['p_holm']:.3f}", one["verdict"]]
        lines.append(row([*cells, ", ".join(map(str, one["seeds"]))]))
    return lines


def _cards(report: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(card for arm in report["arms"] for card in arm["tasks"]))


def _ran(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Arms of which there is a run."""
    return [arm for arm in report["arms"] if arm["seeds"]]


def _waiting(report: Mapping[str, Any]) -> str:
    """The others, with the seeds that are missing; empty where there are none."""
    missing: dict[str, list[str]] = {}
    for arm in report["arms"]:
        if not arm["seeds"]:
            missing.setdefault(", ".join(map(str, arm["missing_seeds"])), []).append(arm["arm"])
    return "; ".join(f"{', '.join(names)} (missing {seeds})" for seeds, names in missing.items())


def _planned(report: Mapping[str, Any]) -> int:
    """How many runs of arms there are to be; of one that was stopped, those that it has."""
    return sum(len(arm["seeds"]) + (0 if arm["stopped"] else len(arm["missing_seeds"])) for arm in report["arms"])


def _relative(change: Mapping[str, Any] | None, seeds: Sequence[int]) -> str:
    if change is None:
        return ""
    value, low, high = (points(change[key] / 100) for key in ("value", "low", "high"))
    fewer = of_seeds(change, seeds)
    return f"{value} [{low}, {high}]" + (f"<br>{fewer}" if fewer else "")


def _seeds(arm: Mapping[str, Any]) -> str:
    text = ", ".join(map(str, arm["seeds"])) or "none"
    if arm["stopped"]:
        return f"{text} (stopped: the others would hardly change what is said)"
    return f"{text} (missing {', '.join(map(str, arm['missing_seeds']))})" if arm["missing_seeds"] else text
