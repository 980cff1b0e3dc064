"""What a study shows: every arm against another, with intervals, corrected tests, power, and a verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from harness.board.entries import Entry, entries_of
from harness.board.evidence import CACHE, Evidence
from harness.board.records import Record, read_records
from harness.board.relative import against_single_tasks, relative_change, single_task_entries
from harness.board.text import points
from harness.studies.claims import judged
from harness.studies.contrasts import compared, corrected, records_of, shown_detectable, value
from harness.studies.interactions import answered
from harness.studies.main_effects import main_effects
from harness.studies.power import SIGNIFICANCE
from harness.studies.robustness import robustness
from harness.studies.spec import Arm, Study
from harness.studies.stopping import chances_of_change, settled

Rows = Sequence[Mapping[str, Any]]


def report(study: Study, arms: Mapping[str, Arm], board: Path, draws: int = 1000) -> dict[str, Any]:
    """Evaluate a study from the records that are on a board.

    Each arm is compared with its reference (the baseline, unless the study says otherwise) on every task that both
    have, over the seeds that both have, on the same images: an interval from the paired bootstrap (two-level with
    several seeds) and a p-value as `harness compare` gives it. p-values are corrected over all arms and tasks of the
    study (Holm 1979). Claims, interactions and main effects are families of their own, see
    `harness.studies.claims.judged`, `harness.studies.interactions.answered` and
    `harness.studies.main_effects.main_effects`.

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
    evidence = Evidence(board, draws, keep_in=CACHE.with_name(f"study-{study.name}.json"))
    records = read_records(board)
    ranked = [entry for entry in entries_of(records) if not entry.problems]
    found = {name: records_of(arm, records) for name, arm in arms.items()}
    references = study.references()
    contrasts = corrected([one for name, other in references.items() for one in compared(name, other, found, evidence)])
    pairs = {(claim.arm, other) for claim in study.claims for other in claim.beats}
    claims = judged(study.claims, {pair: compared(*pair, found, evidence) for pair in sorted(pairs)}, found)
    interactions = answered(study.interactions, found, evidence)
    effects = main_effects(study, found, evidence)
    chances = {}
    if study.stop is not None:
        planned = {name: len(arm.submission.seeds) for name, arm in arms.items()}
        chances = chances_of_change(contrasts, claims, planned, interactions, effects)
    combinations = study.combinations()
    documents = [_arm(arms[name], found[name], study, found[study.baseline], ranked, evidence) for name in arms]
    for document in documents:
        chance = chances.get(document["arm"])
        document["chance_of_change"] = chance
        document["stopped"] = bool(document["missing_seeds"]) and settled(study.stop, len(document["seeds"]), chance)
        document["against"] = references.get(document["arm"])
        document["levels"] = combinations.get(document["arm"])
    evidence.save()  # rounds of a study with a rule for stopping ask for the same again
    return {
        "name": study.name,
        "description": study.description,
        "baseline": study.baseline,
        "seeds": list(arms[study.baseline].submission.seeds),
        "rule": _rule(study, len(contrasts), len(effects)),
        "draws": draws,
        "claims": claims,
        "interactions": interactions,
        "factors": {factor: list(levels) for factor, levels in study.grid.items()},
        "main_effects": effects,
        "arms": documents,
        "contrasts": contrasts,
        "robustness": robustness(references, found),
        "verdicts": _verdicts(references, contrasts, effects),
    }


def _rule(study: Study, comparisons: int, effects: int) -> str:
    told = (
        "An arm is better (or worse) than the one that it is compared with on a task if a paired test on the same"
        f" images and seeds gives p below {SIGNIFICANCE:.2f} after Holm's correction over all {comparisons} comparisons"
        " of this study. Anything else is not told apart, whatever the numbers look like."
    )
    if study.claims:
        told += (
            " A claim is supported on a task if its arm is better than every arm that it has to beat, and contradicted"
            " if it is worse than the first of them, after Holm's correction over all claims and tasks."
            " Claims are corrected by themselves: what decides one may not be told apart among all comparisons."
        )
    if effects:
        told += (
            " A factor's level is better (or worse) on average by the same rule, with seeds as replicates, after Holm's"
            f" correction over all {effects} averages."
        )
    if study.stop is not None:
        told += (
            f" After {study.stop.after} seeds an arm gets no more where the probability is at most {study.stop.risk:g}"
            " that they would change what is said of it."
        )
    return told


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
            "seeds": [value(record, card) for record in records],
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
    """Δm against the study's baseline over the seeds and tasks in common, and these seeds."""
    common = {record.seed for record in ours} & {record.seed for record in base}
    a, b = ([record for record in side if record.seed in common] for side in (ours, base))
    if not common:
        return None
    cards = sorted(a[0].tasks.keys() & b[0].tasks.keys())
    change = relative_change(evidence, dict.fromkeys(cards, a), dict.fromkeys(cards, b)) if cards else None
    return change.model_dump(exclude={"tasks"}) | {"seeds": sorted(common)} if change is not None else None


def _verdicts(references: Mapping[str, str], contrasts: Rows, effects: Rows) -> list[str]:
    levels: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for one in effects:
        levels.setdefault((one["factor"], one["level"], one["against"]), []).append(one)
    averages = [_words(f"On average over the grid, {level}", other, own) for (_, level, other), own in levels.items()]
    own = {name: [one for one in contrasts if one["arm"] == name] for name in references}
    sentences = [_words(name, references[name], found) for name, found in own.items() if found]
    missing = [name for name, found in own.items() if not found]
    return averages + sentences + ([f"Nothing to compare yet: {', '.join(missing)}."] if missing else [])


def _words(name: str, reference: str, own: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for verdict in ("better", "worse"):
        cards = [f"{one['card']} ({points(one['difference'], 1)} points)" for one in own if one["verdict"] == verdict]
        if cards:
            parts.append(f"{verdict} on {', '.join(cards)}")
    open_ = [f"{one['card']} ({_size(one)})" for one in own if one["verdict"] == "not told apart"]
    if open_:
        parts.append(f"not told apart on {', '.join(open_)}")
    sentence = f"{name} against {reference}: {'; '.join(parts)}."
    seeds = len(own[0]["seeds"])
    return sentence if seeds > 1 else f"{sentence} One seed speaks of these trained weights, not of the method."


def _size(one: Mapping[str, Any]) -> str:
    difference = points(one["difference"], 1)
    return difference if one["detectable"] is None else f"{difference}, detectable {shown_detectable(one, 1)}"
