"""What tasks do to each other, from an entry and the runs of its recipe on some of its tasks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from harness.analysis import transfer
from harness.board.entries import Entry, by_preference
from harness.board.evidence import Evidence
from harness.board.records import Record
from harness.board.relations import relations, table
from harness.errors import HarnessError

Index = Mapping[str, Sequence[Entry]]  # ranked entries by fingerprint


def by_fingerprint(ranked: Iterable[Entry]) -> Index:
    """Ranked entries by what defines their runs; several names may stand for one submission."""
    found: dict[str, list[Entry]] = defaultdict(list)
    for entry in ranked:
        found[entry.records[0].fingerprint].append(entry)
    return found


def subset_fingerprints(record: Record) -> dict[transfer.Subset, str]:
    """Fingerprints of the runs of a record's recipe on some of its tasks, as far as the record names them.

    Records from before they were named still name the baselines of Δm. Without placeholder tokens these are the runs of
    one task; with tokens they are not, for baselines have none.
    """
    if record.subsets:
        return {frozenset(one.tasks): one.fingerprint for one in record.subsets}
    model = (record.submission or {}).get("model")
    placeholders = model.get("placeholders") if isinstance(model, dict) else None
    plain = isinstance(placeholders, dict) and placeholders.get("count") == 0
    return {frozenset({card}): fingerprint for card, fingerprint in record.baselines.items()} if plain else {}


def between_tasks(entry: Entry, index: Index | None, evidence: Evidence) -> dict[str, Any]:
    """What `board.json` says of an entry's tasks beside each other; nothing where nothing is known.

    Args:
        entry: The entry.
        index: From `by_fingerprint`; None for an entry that is not ranked.
        evidence: The board's statistics.
    """
    document: dict[str, Any] = {}
    if alike := relations(entry.records):
        document["relations"] = alike
    if index is not None and (found := interaction(entry, index, evidence)) is not None:
        document["interaction"] = found
    return document


def interaction(entry: Entry, index: Index, evidence: Evidence) -> dict[str, Any] | None:
    """Transfer, leave-one-out and Standley's gain of an entry, as far as the runs that they need are on the board.

    Args:
        entry: Ranked, of any number of tasks.
        index: From `by_fingerprint`.
        evidence: The board's statistics.

    Returns:
        ``matrices`` (``transfer``, and of three tasks or more ``leave_one_out``: ``value``, ``low``, ``high`` as
        fractions), ``together`` (m_t(all) - m_t(t) by task), ``loss_gain`` (by task) and ``missing[]`` (``tasks``,
        ``fingerprint`` or None where the record does not name it, ``seeds`` that are missing, ``partly``: others
        are there). None where no such run is on the board.
    """
    first = entry.records[0]
    wanted = subset_fingerprints(first)
    known: dict[transfer.Subset, dict[int, Record]] = {}
    seeds = [record.seed for record in entry.records]
    for names, fingerprint in wanted.items():
        runs = [one for one in index.get(fingerprint, ()) if _fits(one, names, entry)]
        if runs:
            known[names] = {record.seed: record for record in by_preference(runs, seeds)[0].records}
    if not known:
        return None
    tasks = sorted(first.tasks)
    everything = frozenset(tasks)
    missing = missing_runs(tasks, wanted, known, seeds)
    known[everything] = {record.seed: record for record in entry.records}
    kinds: dict[str, Callable[[str, str], transfer.Terms]] = {"transfer": transfer.pair_terms}
    if len(tasks) > 2:
        kinds["leave_one_out"] = partial(transfer.leave_one_out_terms, tasks)
    matrices = []
    for measure, make in kinds.items():
        cells = _cells(tasks, make, known, evidence)
        if cells:
            matrices.append(table(measure, tasks, cells))
    together = {task: _estimated(transfer.total_terms(tasks, task), task, known, evidence) for task in tasks}
    gains = transfer.loss_gains(tasks, known)
    return {
        "matrices": matrices,
        "together": {task: one for task, one in together.items() if one is not None},
        "loss_gain": {task: one for task, one in gains.items() if one is not None},
        "missing": missing,
    }


def missing_runs(
    tasks: Sequence[str], wanted: Mapping[transfer.Subset, str], known: transfer.Known, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """The runs of one task, two tasks and all but one that are not there with all seeds of an entry; small ones first.

    Args:
        tasks: Of the entry.
        wanted: Fingerprints of those that its record names.
        known: Those that are there.
        seeds: Of the entry.
    """
    everything = frozenset(tasks)
    needed = {frozenset({a, b}) for a in tasks for b in tasks} | {everything - {task} for task in tasks}
    found = []
    for names in sorted(needed - {everything, frozenset()}, key=lambda one: (len(one), sorted(one))):
        there = known.get(names, {})
        if lacking := [seed for seed in seeds if seed not in there]:
            fingerprint = wanted.get(names)
            found.append({"tasks": sorted(names), "fingerprint": fingerprint, "seeds": lacking, "partly": bool(there)})
    return found


def _fits(one: Entry, names: transfer.Subset, entry: Entry) -> bool:
    """Whether an entry is of these tasks, scored as the other."""
    return one.columns.keys() == names and all(one.columns[card] == entry.columns[card] for card in names)


def _cells(
    tasks: Sequence[str], make: Callable[[str, str], transfer.Terms], known: transfer.Known, evidence: Evidence
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for source in tasks:
        for target in tasks:
            if source != target and (one := _estimated(make(source, target), target, known, evidence)) is not None:
                found.setdefault(source, {})[target] = one
    return found


def _estimated(terms: transfer.Terms, target: str, known: transfer.Known, evidence: Evidence) -> dict[str, Any] | None:
    try:
        return transfer.estimated(terms, target, known, evidence)
    except HarnessError:  # too few images for an interval
        return None
