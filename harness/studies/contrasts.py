"""Comparing arms of a study, or sums of them, on one task: the difference, its test, and what it could have seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from harness.board.entries import by_preference, entries_of, protocol_hash
from harness.board.evidence import Evidence, Paired
from harness.board.records import Record
from harness.board.text import percent
from harness.evaluation.resampling import holm, paired_sums
from harness.studies.power import SIGNIFICANCE, detectable
from harness.studies.spec import Arm

Terms = Sequence[tuple[float, Sequence[Record]]]  # coefficients, and arms: one record per seed


class Change(BaseModel):
    """What one sum of arms reaches beside another.

    Attributes:
        first: The one sum, in fractions.
        second: The other.
        difference: First minus second.
        low: Lower end of its 95% interval.
        high: Upper end.
        p_value: Two-sided, uncorrected.
        image_spread: Standard deviation of the difference over draws of images alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float
    image_spread: float


def records_of(arm: Arm, records: Sequence[Record]) -> list[Record]:
    """The records of an arm, one per seed, as far as they are there.

    They are in the order of their seeds, whatever order the arm names these in: arms are paired by position.

    Args:
        arm: The arm.
        records: Of the board.
    """
    fingerprint, seeds = arm.submission.fingerprint(), arm.submission.seeds
    # The same submission may stand on the board under several names; the study's own runs come first.
    same = by_preference(entries_of(record for record in records if record.fingerprint == fingerprint), seeds)
    same.sort(key=lambda entry: entry.records[0].name != arm.submission.name)
    by_seed = {record.seed: record for entry in reversed(same) for record in entry.records}
    return [by_seed[seed] for seed in sorted(seeds) if seed in by_seed]


def compared(arm: str, against: str, found: Mapping[str, Sequence[Record]], evidence: Evidence) -> list[dict[str, Any]]:
    """An arm against another on every task that both have, over the seeds that both have.

    Args:
        arm: Name of the arm.
        against: Name of the other one.
        found: Records by arm.
        evidence: The board's statistics.

    Returns:
        Plain JSON values, one dict per task; ``image_spread`` is the standard deviation over draws of images.
    """
    common = {record.seed for record in found[arm]} & {record.seed for record in found[against]}
    a, b = ([record for record in found[name] if record.seed in common] for name in (arm, against))
    if not common:
        return []
    outcomes = []
    for card, result in a[0].tasks.items():
        if not one_protocol((a, b), card):
            continue
        outcome: Paired = evidence.paired(a, b, card)
        shown = outcome.model_dump(include={"difference", "low", "high", "p_value", "p_method", "images"})
        outcomes.append(
            {"arm": arm, "against": against, "card": card, "main": result.main, **shown}
            | {"seeds": sorted(common), "image_spread": outcome.image_spread}
            | {"by_seed": [value(x, card) - value(y, card) for x, y in zip(a, b, strict=True)]}
        )
    return outcomes


def summed(first: Terms, second: Terms, card: str, evidence: Evidence) -> Change:
    """Sums of arms on a task, each arm times a coefficient, on the same images and seeds.

    Tested by the two-level bootstrap of `harness.evaluation.resampling.paired_sums`; with one seed, of images alone.

    Args:
        first: What is added up on the one side.
        second: On the other.
        card: The task.
        evidence: The board's statistics.

    Raises:
        HarnessError: Statistics are missing or damaged.
    """

    def compute() -> Change:
        a, b = ([(factor, evidence.results(arm, card)) for factor, arm in side] for side in (first, second))
        found = paired_sums(a, b, evidence.draws, evidence.seed)
        return Change(
            first=found.a,
            second=found.b,
            difference=found.difference,
            low=found.interval.low,
            high=found.interval.high,
            p_value=found.p_value,
            image_spread=found.image_spread,
        )

    factors = [[factor for factor, _ in side] for side in (first, second)]
    return evidence.outcome(Change, compute, f"sums {factors}", *((card, arm) for _, arm in (*first, *second)))


def one_protocol(arms: Iterable[Sequence[Record]], card: str) -> bool:
    """Whether all arms have a task, under one protocol."""
    tasks = [arm[0].tasks.get(card) for arm in arms]
    return None not in tasks and len({protocol_hash(task.protocol) for task in tasks if task}) == 1


def corrected(contrasts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Comparisons with their p-values corrected as one family (Holm 1979), power and outcome."""
    p_values = holm([one["p_value"] for one in contrasts]) if contrasts else []
    return [
        {
            **one,
            "p_holm": p,
            "detectable": detectable(one["by_seed"], one["image_spread"], len(contrasts)),
            "verdict": outcome(one["difference"], p),
        }
        for one, p in zip(contrasts, p_values, strict=True)
    ]


def outcome(difference: float, p_holm: float) -> str:
    """``better``, ``worse`` or ``not told apart``."""
    if p_holm < SIGNIFICANCE:
        return "better" if difference > 0 else "worse"
    return "not told apart"


def shown_detectable(one: Mapping[str, Any], decimals: int = 2) -> str:
    """The difference that a comparison could have told, in points; a dash where there is none."""
    found = one["detectable"]
    return f"over {percent(1.0, 0)}" if found is not None and found > 1 else percent(found, decimals)


def value(record: Record, card: str) -> float:
    """A record's headline number on a card; NaN where it is undefined."""
    number = record.tasks[card].value
    return float("nan") if number is None else number
