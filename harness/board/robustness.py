"""What records say about corrupted images and training images: per entry, and two entries side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from harness.board.gaps import gap_document
from harness.board.records import Record
from harness.board.schema import Robustness
from harness.evaluation.resampling import PairedDifference, drawn_difference, holm

SIGNIFICANCE = 0.05

Side = Mapping[str, Sequence[Record]]  # for each card the records (seeds) that are compared on it


class DropComparison(BaseModel):
    """Two entries' mean drops on one task.

    Attributes:
        card: Dataset card.
        main: The headline number's name.
        kinds: Of the corruptions of both.
        severities: Of both.
        a: First entry's drop, the mean over its seeds.
        b: Second entry's.
        difference: First minus second; below 0 the first loses less.
        low: Lower end of its 95% interval, over the same images for both (and over seeds, where there are several).
        high: Upper end.
        p_value: Two-sided, uncorrected, of the bootstrap.
        p_holm: Corrected over the tasks of the comparison (Holm 1979).
        verdict: The outcome in words.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    card: str
    main: str
    kinds: list[str]
    severities: list[int]
    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float
    p_holm: float
    verdict: str


def compare_drops(a: Side, b: Side, cards: Sequence[str], seed: int = 0) -> tuple[list[DropComparison], list[str]]:
    """Compare drops on each task on which both entries have been scored under the same corruptions.

    Both drops are known on the same draws of the same images, so that what makes images hard for both cancels.

    Args:
        a: First entry.
        b: Second entry.
        cards: The tasks in common, under equal protocols.
        seed: Of the spread over seeds.

    Returns:
        The comparisons, and a sentence for each task on which only one has drops, or the two of different corruptions.
    """
    outcomes: dict[str, PairedDifference] = {}
    sentences = []
    for card in cards:
        outcome = paired_drop(a[card], b[card], card, seed)
        if isinstance(outcome, str):
            sentences.append(f"{card}: drops are not compared: {outcome}.")
        elif outcome is not None:
            outcomes[card] = outcome
    corrected = holm([outcome.p_value for outcome in outcomes.values()])
    found = []
    for (card, outcome), p_holm in zip(outcomes.items(), corrected, strict=True):
        one = a[card][0].tasks[card]
        assert one.robustness is not None
        found.append(
            DropComparison(
                card=card,
                main=one.main,
                kinds=one.robustness.kinds,
                severities=one.robustness.severities,
                a=outcome.a,
                b=outcome.b,
                difference=outcome.difference,
                low=outcome.interval.low,
                high=outcome.interval.high,
                p_value=outcome.p_value,
                p_holm=p_holm,
                verdict=_verdict(outcome, p_holm),
            )
        )
    return found, [*(f"{one.card}: {one.verdict}." for one in found), *sentences]


def paired_drop(
    a: Sequence[Record], b: Sequence[Record], card: str, seed: int = 0, names: tuple[str, str] = ("A", "B")
) -> PairedDifference | str | None:
    """The difference of two entries' drops on one task.

    Args:
        a: First entry, one record per seed.
        b: Second entry.
        card: The task.
        seed: Of the spread over seeds.
        names: What they are called where only one has drops.

    Returns:
        The difference; why there is none; or None where neither has drops or one is undefined.
    """
    ours, base = (protocol(side, card) for side in (a, b))
    if ours is None and base is None:
        return None
    if ours is None or base is None or ours != base:
        return _difference(ours, base, names)
    first, second = (_drawn(side, card) for side in (a, b))
    if first is None or second is None or first[1].shape[1] != second[1].shape[1]:
        return None
    return drawn_difference(first, second, a[0].tasks[card].images, seed)


def task_document(records: Sequence[Record], card: str) -> dict[str, Any]:
    """What `board.json` says of an entry's task beside its numbers; nothing where it was not asked for.

    Args:
        records: The entry's, one per seed.
        card: The task.
    """
    document: dict[str, Any] = {}
    results = [record.tasks[card] for record in records]
    known = [result.robustness for result in results if result.robustness is not None]
    same = protocol(records, card)
    if same is not None and len(known) == len(results):
        drawn = _drawn(records, card)
        nothing = ([0.0] * len(known), np.zeros_like(drawn[1])) if drawn else None
        drop = drawn_difference(drawn, nothing, results[0].images) if drawn and nothing else None
        document["robustness"] = {
            "version": same[0],
            "kinds": list(same[1]),
            "severities": list(same[2]),
            "values": {
                kind: [_mean([one.values[kind][place] for one in known]) for place in range(len(same[2]))]
                for kind in same[1]
            },
            "drop": drop.difference if drop else None,
            "low": drop.interval.low if drop else None,
            "high": drop.interval.high if drop else None,
            "relative": _mean([one.relative for one in known]),
        }
    gap = gap_document(records, card)
    return document | ({} if gap is None else {"train_gap": gap})


def sentences(record: Record) -> list[str]:
    """A record's drops and gaps in words, for a terminal."""
    found = []
    for card, task in record.tasks.items():
        one, gap = task.robustness, task.train_gap
        if one is not None and one.drop is not None:
            relative = f", {100 * one.relative:.0f}% of the clean number" if one.relative is not None else ""
            worst = min(one.kinds, key=lambda kind: fmean(value or 0.0 for value in one.values[kind]))
            found.append(
                f"{card}: drop of {task.main} on corrupted images: {100 * one.drop:.2f} points"
                f"{_interval(one.low, one.high)}{relative}; lowest under {worst}"
            )
        if gap is not None and gap.gap is not None:
            found.append(
                f"{card}: train-test gap of {task.main}: {100 * gap.gap:+.2f} points{_interval(gap.low, gap.high)}"
                f" ({gap.images:,} training images)"
            )
    return found


def protocol(records: Sequence[Record], card: str) -> tuple[int, tuple[str, ...], tuple[int, ...]] | None:
    """Version, kinds and severities that all seeds of an entry were corrupted by; None where they have no such."""
    found = {one.protocol if one is not None else None for one in _known(records, card)}
    return found.pop() if len(found) == 1 else None


def _known(records: Sequence[Record], card: str) -> list[Robustness | None]:
    return [record.tasks[card].robustness for record in records]


def _drawn(records: Sequence[Record], card: str) -> tuple[list[float], NDArray[np.float64]] | None:
    """Each seed's drop and its drops on the draws of images; None where one is undefined."""
    known = [one for one in _known(records, card) if one is not None]
    drops = [one.drop for one in known if one.drop is not None]
    lengths = {len(one.draws) for one in known}
    if len(drops) < len(records) or len(lengths) != 1 or lengths == {0}:
        return None
    drawn = np.array([[np.nan if value is None else value for value in one.draws] for one in known])
    return (drops, drawn) if np.isfinite(drawn).any(axis=1).all() else None


def _difference(ours: tuple[Any, ...] | None, base: tuple[Any, ...] | None, names: tuple[str, str]) -> str:
    if ours is None or base is None:
        return f"only {names[ours is None]} has them"
    place = next(n for n, (one, other) in enumerate(zip(ours, base, strict=True)) if one != other)
    return f"the two were scored under different {('versions', 'kinds', 'severities')[place]} of corruptions"


def _verdict(outcome: PairedDifference, p_holm: float) -> str:
    if p_holm < SIGNIFICANCE:
        less, sign = ("A", -1) if outcome.difference < 0 else ("B", 1)
        low, high = sorted((sign * outcome.interval.low, sign * outcome.interval.high))
        size = f"{100 * abs(outcome.difference):.1f} points [{100 * low:.1f}, {100 * high:.1f}]"
        return f"on corrupted images {less} loses less, by {size}"
    ends = f"[{100 * outcome.interval.low:+.1f}, {100 * outcome.interval.high:+.1f}]"
    return f"what corruptions cost A and B cannot be told apart ({100 * outcome.difference:+.1f} points {ends})"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{100 * low:.2f}, {100 * high:.2f}]"
