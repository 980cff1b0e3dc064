"""What a study shows: every arm against the baseline, with intervals, corrected tests, power and a verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist, fmean
from typing import Any

from harness.board.entries import Entry, entries_of, protocol_hash
from harness.board.evidence import LEVEL, Evidence, Paired
from harness.board.records import Record, read_records
from harness.board.relative import against_single_tasks, relative_change, single_task_entries
from harness.board.text import percent
from harness.evaluation.resampling import holm
from harness.studies.spec import Arm, Study

SIGNIFICANCE = 1 - LEVEL
POWER = 0.8


def report(study: Study, arms: Mapping[str, Arm], board: Path, draws: int = 1000) -> dict[str, Any]:
    """Evaluate a study from the records that are on a board.

    Each arm is compared with the baseline on every task that both have, over the seeds that both have, on the same
    images: an interval from the paired bootstrap (two-level with several seeds) and a p-value as `harness compare`
    gives it. p-values are corrected over all arms and tasks of the study (Holm 1979).

    Args:
        study: What was asked.
        arms: Its arms.
        board: Where the records are.
        draws: Bootstrap draws, and random swaps.

    Returns:
        Plain JSON values; see ``docs/studies.md``.

    Raises:
        HarnessError: Statistics are missing or damaged.
    """
    evidence = Evidence(board, draws)
    records = read_records(board)
    ranked = [entry for entry in entries_of(records) if not entry.problems]
    found = {name: _records(arm, records) for name, arm in arms.items()}
    contrasts = [
        one
        for name in arms
        if name != study.baseline
        for one in _contrasts(name, found[name], found[study.baseline], evidence)
    ]
    corrected = holm([one["p_value"] for one in contrasts]) if contrasts else []
    for one, p in zip(contrasts, corrected, strict=True):
        one |= {"p_holm": p, "detectable": _detectable(one["low"], one["high"], len(contrasts))}
        one["verdict"] = _verdict(one)
    documents = [_arm(arms[name], found[name], study, found[study.baseline], ranked, evidence) for name in arms]
    return {
        "name": study.name,
        "description": study.description,
        "baseline": study.baseline,
        "seeds": list(arms[study.baseline].submission.seeds),
        "rule": (
            f"An arm is better (or worse) than {study.baseline} on a task if a paired test on the same images and seeds"
            f" gives p below {SIGNIFICANCE:.2f} after Holm's correction over all {len(contrasts)} comparisons of this"
            " study. Anything else is not told apart, whatever the numbers look like."
        ),
        "draws": draws,
        "arms": documents,
        "contrasts": contrasts,
        "verdicts": [_words(name, contrasts) for name in arms if name != study.baseline],
    }


def _records(arm: Arm, records: Sequence[Record]) -> list[Record]:
    fingerprint, seeds = arm.submission.fingerprint(), arm.submission.seeds
    # The same submission may stand on the board under several names; its numbers are the same, but its own come first.
    same = [record for record in records if record.fingerprint == fingerprint]
    same.sort(key=lambda record: record.name == arm.submission.name)
    by_seed = {record.seed: record for record in same}
    return [by_seed[seed] for seed in seeds if seed in by_seed]


def _contrasts(name: str, ours: Sequence[Record], base: Sequence[Record], evidence: Evidence) -> list[dict[str, Any]]:
    common = {record.seed for record in ours} & {record.seed for record in base}
    a, b = ([record for record in side if record.seed in common] for side in (ours, base))
    if not common:
        return []
    found = []
    for card, result in a[0].tasks.items():
        if card not in b[0].tasks or protocol_hash(result.protocol) != protocol_hash(b[0].tasks[card].protocol):
            continue
        outcome: Paired = evidence.paired(a, b, card)
        shown = outcome.model_dump(include={"difference", "low", "high", "p_value", "p_method", "images"})
        by_seed = [_value(x, card) - _value(y, card) for x, y in zip(a, b, strict=True)]
        found.append(
            {"arm": name, "card": card, "main": result.main, **shown, "seeds": sorted(common), "by_seed": by_seed}
        )
    return found


def _value(record: Record, card: str) -> float:
    value = record.tasks[card].value
    return float("nan") if value is None else value


def _detectable(low: float, high: float, family: int) -> float | None:
    """Smallest true difference that would have been told apart with 80% power; None where nothing varied.

    (z_{1-α/2} + z_{0.8}) times the standard error that the 95% interval implies, with α at the smallest level that
    Holm's correction takes, 0.05 / family: what the most demanding of the tests would have seen.
    """
    if not high > low:
        return None
    normal = NormalDist()
    error = (high - low) / (2 * normal.inv_cdf(0.5 + LEVEL / 2))
    return (normal.inv_cdf(1 - SIGNIFICANCE / family / 2) + normal.inv_cdf(POWER)) * error


def _verdict(one: Mapping[str, Any]) -> str:
    if one["p_holm"] < SIGNIFICANCE:
        return "better" if one["difference"] > 0 else "worse"
    return "not told apart"


def _arm(
    arm: Arm,
    records: Sequence[Record],
    study: Study,
    base: Sequence[Record],
    ranked: Sequence[Entry],
    evidence: Evidence,
) -> dict[str, Any]:
    wanted = list(arm.submission.seeds)
    document: dict[str, Any] = {
        "arm": arm.name,
        "entry": f"{arm.submission.name}@{arm.submission.fingerprint()}",
        "seeds": [record.seed for record in records],
        "missing_seeds": [seed for seed in wanted if seed not in {record.seed for record in records}],
        "problems": sorted({reason for record in records for reason in record.unrankable_because}),
        "tasks": {},
        "delta_m": None,
        "delta_m_single": None,
        "cost": {},
    }
    if not records:
        return document
    for card, result in records[0].tasks.items():
        estimate = evidence.estimate(records, card)
        document["tasks"][card] = {
            "main": result.main,
            "value": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "seeds": [_value(record, card) for record in records],
        }
    for key in ("parameters", "train_seconds", "images_per_second", "steps"):
        values = [getattr(record.cost, key) for record in records]
        document["cost"][key] = fmean(values) if all(value is not None for value in values) else None
    document["delta_m"] = _against(records, base, evidence) if arm.name != study.baseline else None
    if study.single_tasks:
        same = next((one for one in ranked if {r.id for r in records} <= {r.id for r in one.records}), None)
        document["delta_m_single"] = (
            against_single_tasks(same, single_task_entries(ranked), evidence)["delta_m"] if same else None
        )
    return document


def _against(ours: Sequence[Record], base: Sequence[Record], evidence: Evidence) -> dict[str, Any] | None:
    """Δm against the study's baseline over the seeds and tasks in common."""
    common = {record.seed for record in ours} & {record.seed for record in base}
    a, b = ([record for record in side if record.seed in common] for side in (ours, base))
    if not common:
        return None
    cards = sorted(a[0].tasks.keys() & b[0].tasks.keys())
    change = relative_change(evidence, dict.fromkeys(cards, a), dict.fromkeys(cards, b)) if cards else None
    return change.model_dump(exclude={"tasks"}) if change is not None else None


def _words(name: str, contrasts: Sequence[Mapping[str, Any]]) -> str:
    own = [one for one in contrasts if one["arm"] == name]
    if not own:
        return f"{name}: nothing to compare yet."
    parts = []
    for verdict in ("better", "worse"):
        cards = [f"{one['card']} ({100 * one['difference']:+.1f} points)" for one in own if one["verdict"] == verdict]
        if cards:
            parts.append(f"{verdict} on {', '.join(cards)}")
    open_ = [f"{one['card']} ({percent(one['detectable'], 1)})" for one in own if one["verdict"] == "not told apart"]
    if open_:
        parts.append(
            f"not told apart on {', '.join(open_)}; in brackets the difference in points that would have been seen"
            " with 80% power"
        )
    sentence = f"{name}: {'; '.join(parts)}."
    seeds = len(own[0]["seeds"])
    return sentence if seeds > 1 else f"{sentence} One seed speaks of these trained weights, not of the method."
