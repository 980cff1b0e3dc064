"""The whole analysis of a run, as plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.analysis.attention import Summary
from harness.analysis.dependency import controls, dependency, vary
from harness.analysis.gradients import gradient_cosines
from harness.analysis.interaction import interaction
from harness.analysis.opening import Run, open_run
from harness.analysis.pictures import maps
from harness.analysis.prefixes import watched
from harness.analysis.probe import Matrix, own_tokens
from harness.analysis.projection import principal_components, umap
from harness.analysis.relatedness import relatedness
from harness.analysis.scores import scored
from harness.analysis.subsets import MAX_TASKS
from harness.analysis.tokens import Recording, changed
from harness.board.records import find_entry, read_records
from harness.data.transforms import derive_seed
from harness.evaluation.metric import Result
from harness.evaluation.resampling import single_interval
from harness.progress import Reporter

SCHEMA_VERSION = 1
DRAWS = 1000


def analyze(
    entry: str,
    seed: int | None,
    board: Path,
    runs: Path,
    images: int,
    folder: Path | None,
    reporter: Reporter,
    draws: int = DRAWS,
) -> tuple[dict[str, Any], Path]:
    """Analyse a finished run.

    Args:
        entry: Name of an entry of the board, or ``name@fingerprint``.
        seed: Which of its seeds; None means the first one.
        board: The leaderboard's folder.
        runs: Folder of run folders.
        images: How many images of each task's evaluation split to look at; also how many go through all tasks' paths.
        folder: Where the analysis goes; None means ``analysis`` in the run's folder.
        reporter: Shows progress.
        draws: Of every bootstrap.

    Returns:
        The analysis, see ``docs/analysis.md``, and the folder.

    Raises:
        HarnessError: See `open_run`.
    """
    run = open_run(entry, seed, board, runs, images, reporter)
    folder = folder or run.folder / "analysis"
    names = list(run.data)
    report: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "entry": run.record.entry,
        "name": run.record.name,
        "seed": run.record.seed,
        "images": images,
        "draws": draws,
        "left_out": [],
    }
    unchanged, tokens, attention = _watch(run)
    report["tasks"] = {name: _task(run, name, unchanged[name], draws) for name in names}
    report |= {"tokens": None, "picture": None, "attention": None, "dependency": None, "controls": None, "maps": {}}
    if run.network.placeholders is None:
        _leave_out(report, "tokens", "the plain network has no placeholder tokens")
    else:
        report |= _about_tokens(run, report, unchanged, tokens, attention, draws)
    reporter.say("the same images through every task's path")
    report["similarity"] = None
    if len(names) < 2:
        _leave_out(report, "similarity", "there is one task only")
    else:
        report["similarity"] = relatedness(run, images)
    reporter.say("gradients and records")
    report["gradients"] = gradient_cosines(run)
    report["affinity"] = run.record.affinity()
    report["interaction"] = None
    if len(names) > MAX_TASKS:
        _leave_out(report, "interaction", f"there are more than {MAX_TASKS} tasks, with too many subsets to train")
    elif len(names) > 1:
        seeds = [record.seed for record in find_entry(read_records(board), run.record.entry)]
        report["interaction"] = interaction(run.submission, seeds, board, runs, folder, draws)
    else:
        _leave_out(report, "interaction", "there is one task only")
    return report, folder


def _leave_out(report: dict[str, Any], part: str, reason: str) -> None:
    report["left_out"].append({"part": part, "reason": reason})


def _watch(run: Run) -> tuple[dict[str, Result], dict[str, Any], dict[str, Any]]:
    """Each task's result, recorded tokens and attention on its own images, in one pass."""
    results, tokens, attention = {}, {}, {}
    with run.reporter.bar("watching", len(run.data)) as bar:
        for name in run.data:
            recording, summary = Recording(), Summary()
            if run.network.placeholders is None:
                results[name] = scored(run, name)
            else:
                with watched(run.network, summary.add), changed(run.network, name, recording):
                    results[name] = scored(run, name)
                tokens[name], attention[name] = recording.tokens, summary.sites()
            bar.advance()
    return results, tokens, attention


def _task(run: Run, name: str, result: Result, draws: int) -> dict[str, Any]:
    interval = single_interval(result, draws)
    recorded = run.record.tasks[name]
    return {
        "task": run.data[name].adapter.task,
        "main": result.main,
        "images": len(result.ids),
        "value": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "recorded": recorded.value,
        "recorded_images": recorded.images,
    }


def _about_tokens(
    run: Run,
    report: dict[str, Any],
    unchanged: Mapping[str, Result],
    tokens: Mapping[str, Any],
    attention: Mapping[str, Any],
    draws: int,
) -> dict[str, Any]:
    config = run.submission.model.placeholders
    varying = vary(tokens)
    found: dict[str, Any] = {
        "tokens": {
            "count": config.count,
            "width": config.width,
            "mechanism": config.mechanism,
            "placement": config.placement,
            "sharing": config.sharing,
            "sites": run.network.site_names(),
            "read": varying,
        },
        "dependency": dependency(run, tokens, unchanged, draws),
        "controls": controls(run, tokens, unchanged, draws),
    }
    if varying:
        found["picture"] = _picture(run)
    else:
        _leave_out(report, "picture", "these tokens read nothing, so they are the same for every image")
    if any(attention.values()):
        found |= {"attention": attention, "maps": {}}
        for name, sites in attention.items():
            if run.data[name].adapter.card.redistributable:
                found["maps"][name] = maps(run, name, {site: _rank(one) for site, one in sites.items()})
            else:
                _leave_out(report, f"attention over images of {name}", "its licence does not allow showing them")
    else:
        reason = "these tokens take no part in any attention, or in one of a kind that cannot be looked into"
        _leave_out(report, "attention", reason)
    return found


def _rank(site: Mapping[str, Any]) -> list[float] | None:
    """Which tokens are worth a picture, the lowest first: those that look least spread out, or are looked at most."""
    if site["to_tokens"] is None:
        spread: list[float] | None = site["token_entropy"]
        return spread
    return None if site["mass"] is None else [-share for share in site["mass"]]


def _picture(run: Run) -> dict[str, Any] | None:
    """The mean tokens of each task's own images in two dimensions."""
    found = {name: own_tokens(run, name) for name in run.data}
    known = {name: points for name, points in found.items() if points is not None}
    points = np.concatenate(list(known.values()))
    coordinates, shares = principal_components(points)
    embedded = umap(points, derive_seed("umap", run.record.seed) % 2**32)
    return {
        "pca": {"explained": shares, "points": _split(coordinates, known)},
        "umap": None if embedded is None else {"points": _split(embedded, known)},
    }


def _split(points: Matrix, known: Mapping[str, Matrix]) -> dict[str, list[list[float]]]:
    ends = np.cumsum([len(one) for one in known.values()])[:-1]
    return {name: part.tolist() for name, part in zip(known, np.split(points, ends), strict=True)}
