"""Δm: the relative change over several tasks against a baseline, with its interval."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from harness.board.entries import Column, Entry, by_preference
from harness.board.evidence import LEVEL, Evidence
from harness.board.records import Record
from harness.evaluation.resampling import seed_noise

Side = Mapping[str, list[Record]]  # for each card the records (seeds) that are compared on it


class DeltaM(BaseModel):
    """Relative change over tasks in percent, higher is better (Maninis et al. 2019, Vandenhende et al. 2021).

    Attributes:
        value: 100/T · Σ (a_t − b_t)/b_t.
        low: Lower end of the 95% percentile interval, joint over tasks.
        high: Upper end.
        tasks: The cards in the sum.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    value: float
    low: float
    high: float
    tasks: list[str]


def relative_change(evidence: Evidence, ours: Side, base: Side) -> DeltaM | None:
    """Δm with its interval: images redrawn for all tasks and both sides at once, and the spread over seeds.

    Draw d takes the same places in every task's sorted image list, so tasks on the same images vary together, tasks on
    different images independently. The spread over seeds is that of Δm linearised at the means, with Student's t as in
    `harness.evaluation.resampling.entry_interval`.

    Args:
        evidence: The board's statistics.
        ours: Records by card.
        base: The baseline's, of the same cards under equal protocols.

    Returns:
        None where a baseline number is 0.

    Raises:
        HarnessError: Statistics are missing, damaged, or not those of the records.
    """
    if not all(_mean(evidence, base, card) > 0 for card in ours):
        return None
    shown = [(card, side[card]) for card in ours for side in (ours, base)]
    try:
        return evidence.outcome(DeltaM, lambda: _resampled(evidence, ours, base), "relative", *shown)
    except _Undefined:
        return None


def single_task_entries(ranked: Iterable[Entry]) -> dict[tuple[str, Column], list[Entry]]:
    """The ranked entries of one task, by fingerprint and by what their number can be compared with."""
    found: dict[tuple[str, Column], list[Entry]] = defaultdict(list)
    for entry in ranked:
        if len(entry.records[0].tasks) == 1:
            (column,) = entry.columns.values()
            found[entry.records[0].fingerprint, column].append(entry)
    return found


def against_single_tasks(
    entry: Entry, singles: Mapping[tuple[str, Column], Sequence[Entry]] | None, evidence: Evidence
) -> dict[str, Any]:
    """Δm of an entry against its tasks' single-task baselines, as far as these stand on the board.

    The seeds that all of them have are compared, and told; where they have none in common, all. A baseline under
    another name counts all the same (`by_preference`).

    Args:
        entry: The entry.
        singles: From `single_task_entries`; None for an entry that is not ranked, which has no Δm.
        evidence: The board's statistics.
    """
    wanted = entry.records[0].baselines if singles is not None else {}
    found: dict[str, Entry] = {}
    for card, fingerprint in wanted.items():
        alike = (singles or {}).get((fingerprint, entry.columns[card]), ()) if card in entry.columns else ()
        if alike:
            found[card] = by_preference(alike, [record.seed for record in entry.records])[0]
    missing = sorted(set(wanted) - set(found))
    document: dict[str, Any] = {"delta_m": None, "baselines": {card: one.key for card, one in sorted(found.items())}}
    document["baselines_missing"] = missing
    if not wanted or missing:
        return document
    common = set.intersection(*({record.seed for record in one.records} for one in (entry, *found.values())))
    sides = [
        {card: [r for r in one.records if r.seed in common] or list(one.records) for card, one in sorted(side.items())}
        for side in (dict.fromkeys(found, entry), found)
    ]
    change = relative_change(evidence, sides[0], sides[1])
    if change is not None:
        seeds = sorted({record.seed for records in sides[0].values() for record in records})
        document["delta_m"] = change.model_dump(exclude={"tasks"}) | {"seeds": seeds}
    return document


def of_seeds(change: Mapping[str, Any], seeds: Sequence[int]) -> str:
    """Which seeds a Δm is of, in words; empty if these are all of the entry's.

    Args:
        change: With its ``seeds``.
        seeds: The entry's.
    """
    own = change["seeds"]
    return f"seed{'s' * (len(own) > 1)} {', '.join(map(str, own))}" if own != sorted(seeds) else ""


class _Undefined(Exception):
    """On every draw of images the baseline is 0."""


def _mean(evidence: Evidence, side: Side, card: str) -> float:
    return fmean(result.value for result in evidence.results(side[card], card))


def _resampled(evidence: Evidence, ours: Side, base: Side) -> DeltaM:
    images, plain, spread = [], [], defaultdict(list)
    for card in ours:
        drawn, means = [], []
        for side in (ours, base):
            results = evidence.results(side[card], card)
            drawn.append(np.mean([result.drawn(evidence.draws, evidence.seed) for result in results], axis=0))
            means.append([result.value for result in results])
        a, b = fmean(means[0]), fmean(means[1])
        plain.append((a, b))
        images.append(drawn)
        spread[ours[card][0].entry].append(np.array(means[0]) / b)
        spread[base[card][0].entry].append(-a * np.array(means[1]) / b**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        changes = np.mean([(a - b) / b for a, b in images], axis=0)
    # A draw of images on which the baseline is 0 has no relative change.
    changes = changes[np.isfinite(changes)]
    if not len(changes):
        raise _Undefined
    error, freedom = _seed_error([np.sum(parts, axis=0) / len(ours) for parts in spread.values()])
    if error > 0:
        changes = changes + seed_noise(error, freedom, len(changes), evidence.seed)
    low, high = np.quantile(changes, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    value = delta_m({str(n): a for n, (a, _) in enumerate(plain)}, {str(n): b for n, (_, b) in enumerate(plain)})
    return DeltaM(value=value, low=100 * float(low), high=100 * float(high), tasks=list(ours))


def delta_m(values: Mapping[str, float], baseline: Mapping[str, float]) -> float:
    """Δm = 100/T · Σ (m_t − b_t)/b_t in percent; every headline number here is better when higher.

    Args:
        values: Headline number by task.
        baseline: The same tasks of the baseline, none of them 0.

    Returns:
        Percent, higher is better. (Navon et al. 2022, Nash-MTL, print the opposite sign.)

    Source:
        Maninis et al. 2019, eq. 1 (arXiv:1904.08918); Vandenhende et al. 2021, eq. 6 (arXiv:2004.13379).
    """
    return 100 * fmean((values[task] - baseline[task]) / baseline[task] for task in baseline)


def _seed_error(groups: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Standard error over seeds of a sum of means, and its degrees of freedom (Welch–Satterthwaite).

    Entries with equally many seeds are paired position by position; an entry with one seed takes the mean variance of
    the others.
    """
    sizes = {len(group) for group in groups}
    if len(sizes) == 1:
        groups = [np.sum(groups, axis=0)]
    known = [float(group.var(ddof=1)) for group in groups if len(group) > 1]
    if not known or not max(known) > 0:
        return 0.0, 1.0
    errors = [(group.var(ddof=1) if len(group) > 1 else fmean(known)) / len(group) for group in groups]
    several = [(error, len(group) - 1) for error, group in zip(errors, groups, strict=True) if len(group) > 1]
    freedom = sum(error for error, _ in several) ** 2 / sum(error**2 / size for error, size in several)
    return float(np.sqrt(sum(errors))), float(freedom)
