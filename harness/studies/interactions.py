"""Differences of differences: whether a change does more in one setting than in another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.board.evidence import Evidence
from harness.board.records import Record
from harness.evaluation.resampling import holm
from harness.studies.contrasts import one_protocol, outcome, summed, value
from harness.studies.spec import Interaction


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
            if not one_protocol(sides, card):
                continue
            a, b, c, d = sides
            change = summed([(1, a), (-1, b)], [(1, c), (-1, d)], card, evidence)
            row = {**one.model_dump(mode="json"), "card": card, "seeds": sorted(common), **change.model_dump()}
            numbers = zip(*([value(record, card) for record in side] for side in sides), strict=True)
            rows.append(row | {"by_seed": [a - b - (c - d) for a, b, c, d in numbers]})
    for row, p in zip(rows, holm([row["p_value"] for row in rows]) if rows else [], strict=True):
        verdict = {"better": "more", "worse": "less"}.get(outcome(row["difference"], p), "not told apart")
        row |= {"p_holm": p, "verdict": verdict}
    return rows
