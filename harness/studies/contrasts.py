"""Comparing two arms of a study on one task: the paired difference, its test, and what the test could have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.board.entries import by_preference, entries_of, protocol_hash
from harness.board.evidence import Evidence, Paired
from harness.board.records import Record
from harness.board.text import percent
from harness.evaluation.resampling import holm
from harness.studies.power import SIGNIFICANCE, detectable
from harness.studies.spec import Arm


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
        if card not in b[0].tasks or protocol_hash(result.protocol) != protocol_hash(b[0].tasks[card].protocol):
            continue
        outcome: Paired = evidence.paired(a, b, card)
        shown = outcome.model_dump(include={"difference", "low", "high", "p_value", "p_method", "images"})
        outcomes.append(
            {"arm": arm, "against": against, "card": card, "main": result.main, **shown}
            | {"seeds": sorted(common), "image_spread": outcome.image_spread}
            | {"by_seed": [value(x, card) - value(y, card) for x, y in zip(a, b, strict=True)]}
        )
    return outcomes


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
