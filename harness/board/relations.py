"""How alike the tasks of an entry are, as small matrices: what follows from its own runs alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from harness.analysis.transfer import student_interval
from harness.board.records import Record

Cells = dict[tuple[str, str], dict[str, float | None]]  # by row and column, of one run

TITLES = {
    "gradient_cosine": "Gradient cosine, mean over training",
    "affinity": "TAG affinity: a step for the row lowers the loss of the column",
    "features_cka": "Features, linear CKA",
    "features_correlation": "Features, correlation",
    "tokens_cka": "Placeholder tokens, linear CKA",
    "tokens_correlation": "Placeholder tokens, correlation",
    "outputs_cka": "Outputs, linear CKA",
    "mutual_information": "Outputs, mutual information in nats",
    "transfer": "Transfer: the column learned with the row, minus alone",
    "leave_one_out": "Leave one out: the column learned with all, minus all but the row",
}


# The least that a measure can be whose greatest is 1; its interval ends there.
BOUNDS = {
    "gradient_cosine": -1.0, "features_cka": 0.0, "features_correlation": -1.0, "tokens_cka": 0.0,
    "tokens_correlation": -1.0, "outputs_cka": 0.0,
}  # fmt: skip


def relations(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Gradient cosines and TAG affinities where training logged them, and the record's relatedness.

    Args:
        records: An entry's, one per seed.

    Returns:
        Matrices: ``measure`` (a key of `TITLES`), ``tasks``, and ``cells.<row>.<column>`` with ``value`` (mean over
        seeds), ``low`` and ``high`` (its 95% interval, Student's over seeds, within the measure's bounds; None for one
        seed), of CKA ``debiased`` too, of mutual information ``chance`` (97.5% of shuffles are below).
        Only what all seeds have.
    """
    found = [dict(_of_run(record)) for record in records]
    tasks = sorted(records[0].tasks)
    return [
        made
        for measure in TITLES
        if all(measure in one for one in found) and (made := _matrix(measure, tasks, [one[measure] for one in found]))
    ]


def table(measure: str, tasks: Sequence[str], cells: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A matrix as the board's document has it."""
    return {"measure": measure, "tasks": list(tasks), "cells": cells}


def _of_run(record: Record) -> Iterator[tuple[str, Cells]]:
    tasks = record.tasks.keys()
    for measure, means, symmetric in (
        ("gradient_cosine", record.cosines(), True),
        ("affinity", record.affinity(), False),
    ):
        cells: Cells = {}
        for pair, value in means.items():
            a, _, b = pair.partition("|")
            if a in tasks and b in tasks:  # names of curves are anybody's
                cells[a, b] = {"value": value}
                if symmetric:
                    cells[b, a] = {"value": value}
        yield measure, cells
    related = record.relatedness
    if related is None:
        return
    for kind, pairs in (("features", related.features), ("tokens", related.tokens)):
        ckas = {(one.a, one.b): {"value": one.cka, "debiased": one.cka_debiased} for one in pairs}
        yield f"{kind}_cka", _both_ways(ckas)
        yield f"{kind}_correlation", _both_ways({(one.a, one.b): {"value": one.pearson} for one in pairs})
    outputs = {(one.a, one.b): {"value": one.cka, "debiased": one.cka_debiased} for one in related.outputs}
    yield "outputs_cka", _both_ways(outputs)
    known = {
        (one.a, one.b): {"value": one.information.nats, "chance": one.information.null_high}
        for one in related.outputs
        if one.information is not None
    }
    yield "mutual_information", _both_ways(known)


def _both_ways(cells: Mapping[tuple[str, str], Mapping[str, float | None]]) -> Cells:
    return {place: dict(cell) for (a, b), cell in cells.items() for place in ((a, b), (b, a))}


def _matrix(measure: str, tasks: Sequence[str], runs: Sequence[Cells]) -> dict[str, Any] | None:
    cells: dict[str, dict[str, Any]] = {}
    for row in tasks:
        for column in tasks:
            own = [run.get((row, column), {}) for run in runs]
            values = [value for cell in own if (value := cell.get("value")) is not None]
            if len(values) < len(runs):
                continue
            ends = student_interval(values)
            if measure in BOUNDS and ends[0] is not None:
                ends = max(BOUNDS[measure], ends[0]), min(1.0, ends[1])
            cell: dict[str, float | None] = {"value": fmean(values), "low": ends[0], "high": ends[1]}
            for key in ("debiased", "chance"):
                beside = [value for one in own if (value := one.get(key)) is not None]
                if len(beside) == len(runs):
                    cell[key] = fmean(beside)
            cells.setdefault(row, {})[column] = cell
    return table(measure, tasks, cells) if cells else None
