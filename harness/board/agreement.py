"""Whether an entry that was trained again gives the numbers that its records say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Literal

from pydantic import BaseModel, ConfigDict
from scipy.stats import t as student

from harness.board.evidence import LEVEL
from harness.board.records import Record
from harness.evaluation.metric import Result
from harness.evaluation.resampling import single_interval

SLACK = 1e-9  # sums of float64 differ by less between machines

Rule = Literal["bit-equal statistics", "interval over images", "t interval over seeds"]
RULES: Mapping[Rule, str] = {
    "bit-equal statistics": "the statistics of every image are equal, bit for bit",
    "interval over images": "the stored number lies within the 95% interval over images of the rerun's",
    "t interval over seeds": "the stored mean lies within the 95% interval that the rerun's seeds predict for a mean of"
    " as many seeds (Student's t)",
}


class TaskAgreement(BaseModel):
    """One task of an entry, stored and rerun.

    Attributes:
        card: Dataset card.
        stored: Headline number of the records, the mean over seeds; None where undefined.
        rerun: The same of the rerun.
        low: Lower end of what the rule allows the stored number to be.
        high: Upper end.
        rule: The rule.
        agrees: Whether it holds.
        reason: Why it does not hold, where the numbers are not the reason.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    card: str
    stored: float | None
    rerun: float | None
    low: float | None
    high: float | None
    rule: Rule
    agrees: bool
    reason: str = ""


def agreement(
    stored: Sequence[Record], rerun: Sequence[Record], results: Sequence[Mapping[str, Result]]
) -> list[TaskAgreement]:
    """Hold an entry's records against those of its rerun with the same seeds.

    Everything that makes the rule wide or narrow is taken from the rerun, whose numbers nobody else could shape. Where
    the statistics are not bit-equal (other hardware), with several seeds the stored mean must lie within
    ``m ± t(0.975, k - 1) · s · sqrt(2 / k)``, m and s being mean and sample standard deviation of the rerun's k seeds:
    Student's prediction interval for the mean of k further runs. With one seed nothing tells how seeds scatter, and the
    stored number must lie within the 95% bootstrap interval over images of the rerun's.

    Args:
        stored: The records, by seed.
        rerun: Those of the rerun, likewise.
        results: The rerun's statistics by card, likewise.

    Returns:
        One outcome for each task of the records.
    """
    return [_task(card, stored, rerun, results) for card in stored[0].tasks]


def _task(
    card: str, stored: Sequence[Record], rerun: Sequence[Record], results: Sequence[Mapping[str, Result]]
) -> TaskAgreement:
    before, after = [record.tasks[card] for record in stored], [record.tasks[card] for record in rerun]
    said, given = _mean([task.value for task in before]), _mean([task.value for task in after])
    identical = all(a.statistics == b.statistics for a, b in zip(before, after, strict=True))
    rule: Rule = "t interval over seeds" if len(after) > 1 else "interval over images"
    rule = "bit-equal statistics" if identical else rule
    low = high = given
    reason = "" if all(a.protocol == b.protocol for a, b in zip(before, after, strict=True)) else "the protocols differ"
    if given is not None and not identical and len(after) > 1:
        values = [task.value for task in after if task.value is not None]
        half = _half_width(values)
        low, high = given - half, given + half
    elif given is not None and not identical:
        interval = single_interval(results[0][card])
        low, high = interval.low, interval.high
        if not (math.isfinite(low) and math.isfinite(high)):
            low = high = given
    if said is None or given is None or low is None or high is None:
        agrees = said is None and given is None
    else:
        agrees = low - SLACK <= said <= high + SLACK
    return TaskAgreement(
        card=card,
        stored=said,
        rerun=given,
        low=low,
        high=high,
        rule=rule,
        agrees=agrees and not reason,
        reason=reason,
    )


def _half_width(values: Sequence[float]) -> float:
    count = len(values)
    quantile = float(student.ppf((1 + LEVEL) / 2, count - 1))
    return quantile * stdev(values) * math.sqrt(2 / count)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None
