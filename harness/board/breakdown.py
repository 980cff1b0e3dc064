"""Where two entries differ: paired differences by class, by size of the objects, by type of the question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from harness.board.evidence import LEVEL
from harness.errors import HarnessError, suggestion
from harness.evaluation.metric import Result
from harness.evaluation.permutation import permutation_p_values_by
from harness.evaluation.resampling import holm, paired_breakdown


class Part(BaseModel):
    """Two entries on one part of a task's data.

    Attributes:
        name: The class, size or type.
        a: First entry's number, the mean over its seeds.
        b: Second entry's.
        difference: First minus second.
        low: Lower end of its 95% interval, as of the whole task: for this part alone.
        high: Upper end.
        p_value: Two-sided, uncorrected.
        p_holm: Corrected over the parts of this breakdown (Holm 1979).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float
    p_holm: float

    @property
    def told_apart(self) -> bool:
        """Whether the two differ on this part, with all parts taken into account."""
        return self.p_holm < 1 - LEVEL


def breakdown(a: Sequence[Result], b: Sequence[Result], kind: str, draws: int, seed: int) -> list[Part]:
    """The parts of one task, in the order of the data's own list.

    Args:
        a: First entry, one result per training seed.
        b: Second entry, likewise.
        kind: One of the results' `breakdowns`.
        draws: Bootstrap draws.
        seed: Of the draws.

    Returns:
        Parts on which both entries have a number; all of one breakdown are one family of hypotheses.
    """
    found = paired_breakdown(a, b, kind, draws, seed)
    p_values = {name: outcome.p_value for name, outcome in found.items()}
    if len(a) == len(b):  # as for whole tasks, see `Evidence`
        swapped = permutation_p_values_by(a, b, kind, draws, seed)
        p_values = {name: max(swapped[name], p if len(a) > 1 else 0.0) for name, p in p_values.items()}
    corrected = holm(list(p_values.values()))
    return [
        Part(
            name=name,
            a=outcome.a,
            b=outcome.b,
            difference=outcome.difference,
            low=outcome.interval.low,
            high=outcome.interval.high,
            p_value=p_values[name],
            p_holm=p,
        )
        for (name, outcome), p in zip(found.items(), corrected, strict=True)
    ]


def require_kinds(kinds: Sequence[str], results: Mapping[str, Result]) -> None:
    """Refuse a breakdown that none of the tasks has.

    Args:
        kinds: What was asked for.
        results: A result of each task, by card.

    Raises:
        HarnessError: No task has one of the kinds.
    """
    offered = {kind: None for result in results.values() for kind in result.breakdowns}
    for kind in kinds:
        if kind not in offered:
            has = "; ".join(f"{card}: {', '.join(result.breakdowns)}" for card, result in results.items())
            raise HarnessError(f"--by {kind}: no task in common has this breakdown{suggestion(kind, offered)} ({has})")
