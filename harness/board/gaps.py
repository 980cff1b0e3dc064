"""What records say about training images: the gap to the evaluation split, per entry and two entries side by side."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.board.records import Record
from harness.board.schema import TrainGap
from harness.evaluation.resampling import PairedDifference, drawn_difference


def gap_document(records: Sequence[Record], card: str) -> dict[str, Any] | None:
    """An entry's gap on one task, mean over its seeds, or None where not every seed has one.

    With several seeds the interval is that of images and seeds; records without draws have none then.

    Args:
        records: The entry's, one per seed.
        card: The task.
    """
    gaps = _gaps(records, card)
    if not gaps:
        return None
    low, high = gaps[0].low, gaps[0].high
    if len(gaps) > 1:
        side = _drawn(gaps)
        nothing = ([0.0] * len(gaps), np.zeros_like(side[1])) if side else None
        whole = drawn_difference(side, nothing, gaps[0].images).interval if side and nothing else None
        low, high = (whole.low, whole.high) if whole else (None, None)
    seeds = [gap.gap for gap in gaps]
    return {
        "images": gaps[0].images,
        "value": _mean([gap.value for gap in gaps]),
        "gap": _mean(seeds),
        "low": low,
        "high": high,
        "seeds": seeds,
    }


def paired_gap(
    a: Sequence[Record], b: Sequence[Record], card: str, seed: int = 0, names: tuple[str, str] = ("A", "B")
) -> PairedDifference | str | None:
    """The difference of two entries' gaps on one task, on the same training and evaluation images.

    Which training images are scored follows from the seed, so that seeds are paired one by one.

    Args:
        a: First entry, one record per seed.
        b: Second entry, the same seeds in the same order.
        card: The task.
        seed: Of the spread over seeds.
        names: What they are called where only one has gaps.

    Returns:
        The difference; why there is none; or None where neither has gaps or one is undefined.
    """
    ours, base = _gaps(a, card), _gaps(b, card)
    if not ours and not base:
        return None
    if not ours or not base:
        return f"only {names[not ours]} has them"
    if any(gap.chosen is None for gap in (*ours, *base)):
        return "records of before the draws were kept can only be read one by one"
    if [gap.chosen for gap in ours] != [gap.chosen for gap in base]:
        return "the two were scored on different training images"
    first, second = _drawn(ours), _drawn(base)
    if first is None or second is None or first[1].shape != second[1].shape:
        return None
    return drawn_difference(first, second, a[0].tasks[card].images, seed)


def _gaps(records: Sequence[Record], card: str) -> list[TrainGap]:
    """Each seed's gap; empty unless all have one."""
    known = [record.tasks[card].train_gap for record in records]
    gaps = [gap for gap in known if gap is not None]
    return gaps if len(gaps) == len(known) else []


def _drawn(gaps: Sequence[TrainGap]) -> tuple[list[float], NDArray[np.float64]] | None:
    """Each seed's gap and its gaps on the draws of images; None where one is undefined or has no draws."""
    known = [gap.gap for gap in gaps if gap.gap is not None]
    lengths = {len(gap.draws) for gap in gaps}
    if len(known) < len(gaps) or len(lengths) != 1 or lengths == {0}:
        return None
    drawn = np.array([[np.nan if value is None else value for value in gap.draws] for gap in gaps])
    return (known, drawn) if np.isfinite(drawn).any(axis=1).all() else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None
