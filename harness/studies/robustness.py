"""What the arms of a study lose on corrupted images, and how much better they are on what they were trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from harness.board.entries import protocol_hash
from harness.board.gaps import paired_gap
from harness.board.records import Record
from harness.board.robustness import paired_drop, task_document
from harness.evaluation.resampling import PairedDifference, holm
from harness.studies.power import SIGNIFICANCE

_WORDS = {
    "drops": {-1: "loses less", 1: "loses more"},
    "gaps": {-1: "smaller", 1: "larger"},
}
_PAIRED: dict[str, Callable[..., PairedDifference | str | None]] = {"drops": paired_drop, "gaps": paired_gap}


def robustness(references: Mapping[str, str], found: Mapping[str, Sequence[Record]]) -> dict[str, Any] | None:
    """Every arm's drop and gap on every task, and its difference from the arm that it is compared with.

    Drops and gaps are known on the draws of images that all entries share, so that what makes images hard for both
    cancels. p-values are corrected over all comparisons of drops, and over all of gaps, by themselves (Holm 1979).

    Args:
        references: By arm the one that it is compared with.
        found: Records by arm, one per seed.

    Returns:
        Plain JSON values: ``drops`` and ``gaps``, one row per arm and task, and ``left_out``, sentences on what cannot
        be compared; None where no record has either.
    """
    drops, gaps = [], []
    for arm, records in found.items():
        for card in records[0].tasks if records else ():
            document = task_document(records, card)
            shown = {"arm": arm, "card": card, "main": records[0].tasks[card].main, "against": references.get(arm)}
            if (drop := document.get("robustness")) is not None and drop["drop"] is not None:
                drops.append(shown | _drop(drop))
            if (gap := document.get("train_gap")) is not None and gap["gap"] is not None:
                gaps.append(shown | {key: gap[key] for key in ("images", "value", "gap", "low", "high", "seeds")})
    left_out: list[str] = []
    for kind, rows in (("drops", drops), ("gaps", gaps)):
        _compare(kind, rows, found, left_out)
    return {"drops": drops, "gaps": gaps, "left_out": left_out} if drops or gaps else None


def _drop(document: Mapping[str, Any]) -> dict[str, Any]:
    def mean(kind: str) -> float:
        return fmean(value or 0.0 for value in document["values"][kind])

    return {
        **{key: document[key] for key in ("kinds", "severities", "values", "drop", "low", "high", "relative")},
        "hardest": min(document["kinds"], key=mean),
    }


def _compare(kind: str, rows: list[dict[str, Any]], found: Mapping[str, Sequence[Record]], left_out: list[str]) -> None:
    """Put the difference from the reference into each row, None where there is none."""
    compared = []
    for row in rows:
        row["difference"] = None
        arm, against, card = row["arm"], row["against"], row["card"]
        if against is None:
            continue
        common = {record.seed for record in found[arm]} & {record.seed for record in found[against]}
        a, b = ([record for record in found[name] if record.seed in common] for name in (arm, against))
        if not common or not _same_task(a[0], b[0], card):
            continue
        outcome = _PAIRED[kind](a, b, card, names=(arm, against))
        if isinstance(outcome, str):
            left_out.append(f"{arm} against {against}, {card}: {kind} are not compared: {outcome}.")
        elif outcome is not None:
            row["difference"] = {
                "seeds": sorted(common),
                "value": outcome.difference,
                "low": outcome.interval.low,
                "high": outcome.interval.high,
                "p_value": outcome.p_value,
                "by_seed": _by_seed(kind, a, b, card),
            }
            compared.append(row["difference"])
    for one, p in zip(compared, holm([one["p_value"] for one in compared]), strict=True):
        sign = 1 if one["value"] > 0 else -1
        one |= {"p_holm": p, "verdict": _WORDS[kind][sign] if p < SIGNIFICANCE else "not told apart"}


def _same_task(one: Record, other: Record, card: str) -> bool:
    return card in other.tasks and protocol_hash(one.tasks[card].protocol) == protocol_hash(other.tasks[card].protocol)


def _by_seed(kind: str, a: Sequence[Record], b: Sequence[Record], card: str) -> list[float]:
    def value(record: Record) -> float:
        task = record.tasks[card]
        number = task.robustness.drop if kind == "drops" and task.robustness else None
        number = task.train_gap.gap if kind == "gaps" and task.train_gap else number
        return float("nan") if number is None else number

    return [value(x) - value(y) for x, y in zip(a, b, strict=True)]
