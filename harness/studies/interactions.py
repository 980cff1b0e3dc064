"""Differences of differences: whether a change does more in one setting than in another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from harness.board.entries import protocol_hash
from harness.board.evidence import Evidence
from harness.board.records import Record
from harness.evaluation.resampling import holm, paired_sums
from harness.studies.contrasts import outcome, value
from harness.studies.spec import Interaction


class Change(BaseModel):
    """What a change does in one setting beside what it does in another.

    Attributes:
        first: The change's difference in the one setting, in fractions.
        second: In the other.
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


def answered(
    asked: Sequence[Interaction], found: Mapping[str, Sequence[Record]], evidence: Evidence
) -> list[dict[str, Any]]:
    """Each question on every task that its four arms have, over the seeds that all four have.

    p-values (two-level bootstrap; with one seed of images alone) are corrected over all questions and tasks (Holm
    1979).

    Args:
        asked: The questions.
        found: Records by arm.
        evidence: The board's statistics.

    Returns:
        Plain JSON values, one dict per question and task: ``question``, ``more``, ``than``, ``card``, ``seeds``,
        ``first`` and ``second`` (the change's difference in either setting), ``difference``, ``low``, ``high``,
        ``p_value``, ``image_spread``, ``by_seed``, ``p_holm``, ``verdict``.
    """
    rows = []
    for one in asked:
        names = (*one.more, *one.than)
        common = set.intersection(*({record.seed for record in found[name]} for name in names))
        sides = [[record for record in found[name] if record.seed in common] for name in names]
        for card in sides[0][0].tasks if common else ():
            protocols = {protocol_hash(side[0].tasks[card].protocol) if card in side[0].tasks else "" for side in sides}
            if len(protocols) > 1 or "" in protocols:
                continue
            change = _change(sides, card, evidence)
            row = {**one.model_dump(mode="json"), "card": card, "seeds": sorted(common), **change.model_dump()}
            numbers = zip(*([value(record, card) for record in side] for side in sides), strict=True)
            rows.append(row | {"by_seed": [a - b - (c - d) for a, b, c, d in numbers]})
    for row, p in zip(rows, holm([row["p_value"] for row in rows]) if rows else [], strict=True):
        verdict = {"better": "more", "worse": "less"}.get(outcome(row["difference"], p), "not told apart")
        row |= {"p_holm": p, "verdict": verdict}
    return rows


def _change(sides: Sequence[Sequence[Record]], card: str, evidence: Evidence) -> Change:
    """(a - b) - (c - d) of four arms on a task."""

    def compute() -> Change:
        a, b, c, d = (evidence.results(side, card) for side in sides)
        found = paired_sums([(1, a), (-1, b)], [(1, c), (-1, d)], evidence.draws, evidence.seed)
        return Change(
            first=found.a,
            second=found.b,
            difference=found.difference,
            low=found.interval.low,
            high=found.interval.high,
            p_value=found.p_value,
            image_spread=found.image_spread,
        )

    return evidence.outcome(Change, compute, "interaction", *((card, side) for side in sides))
