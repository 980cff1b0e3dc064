"""Two entries of different task sets: what the further tasks of one do to those in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness.analysis.transfer import loss_gain
from harness.board.entries import by_preference, entries_of, protocol_hash
from harness.board.evidence import Paired
from harness.board.interaction import by_fingerprint, missing_runs, subset_fingerprints
from harness.board.matrices import missing_sentence
from harness.board.records import Record
from harness.board.text import points

Kind = Literal["transfer", "leave_one_out", "together", "larger"]
Side = Mapping[str, Sequence[Record]]  # for each card the records (seeds) that are compared on it


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TaskSetEffect(_Document):
    """What learning further tasks as well does to one task.

    Attributes:
        card: The task.
        side: Which entry has the further tasks, ``a`` or ``b``.
        sources: The further tasks.
        kind: ``transfer`` (one beside the task alone), ``leave_one_out`` (one beside several), ``together`` (all others
            beside the task alone), or ``larger``.
        same_recipe: Whether the two differ in nothing but the tasks; None where the records do not name it.
        difference: Headline number with them minus without, on the same images.
        low: Lower end of its 95% interval.
        high: Upper end.
        loss_gain: Standley's gain of training losses, without over with minus 1; None without learning curves, and
            for a task that was trained last long before its run's end.
        gain_low: Lower end of its 95% interval over seeds; None for one seed.
        gain_high: Upper end.
    """

    card: str
    side: Literal["a", "b"]
    sources: list[str]
    kind: Kind
    same_recipe: bool | None
    difference: float
    low: float
    high: float
    loss_gain: float | None
    gain_low: float | None
    gain_high: float | None


def effects(a: Side, b: Side, outcomes: Mapping[str, Paired]) -> list[TaskSetEffect]:
    """The effects on tasks in common of entries of which one has all of the other's tasks, and more.

    Args:
        a: First side.
        b: Second side.
        outcomes: Paired differences, first minus second, by card.
    """
    found = []
    for card, paired in outcomes.items():
        tasks = [set(side[card][0].tasks) for side in (a, b)]
        if tasks[0] == tasks[1] or not (tasks[0] < tasks[1] or tasks[1] < tasks[0]):
            continue
        first_larger = tasks[1] < tasks[0]
        larger, smaller = (a[card], b[card]) if first_larger else (b[card], a[card])
        sources = sorted(tasks[0] ^ tasks[1])
        by_seed = [{record.seed: record for record in records} for records in (smaller, larger)]
        gain = loss_gain(card, *by_seed) or {"gain": None, "low": None, "high": None}
        ends = (paired.low, paired.high) if first_larger else (0 - paired.high, 0 - paired.low)
        found.append(
            TaskSetEffect(
                card=card,
                side="a" if first_larger else "b",
                sources=sources,
                kind=_kind(len(sources), min(map(len, tasks))),
                same_recipe=_same_recipe(larger[0], smaller[0]),
                difference=paired.difference if first_larger else 0 - paired.difference,
                low=ends[0],
                high=ends[1],
                loss_gain=gain["gain"],
                gain_low=gain["low"],
                gain_high=gain["high"],
            )
        )
    return found


def sentences(found: Sequence[TaskSetEffect], a: Side, b: Side, records: Sequence[Record]) -> list[str]:
    """The effects in words, and which runs on some of the tasks the board lacks.

    Args:
        found: From `effects`.
        a: First side.
        b: Second side.
        records: The board's.
    """
    said = [_sentence(one) for one in found]
    told = set()
    for side in (a, b):
        for seeds in side.values():
            if len(seeds[0].tasks) > 1 and seeds[0].entry not in told and _differ(a, b):
                told.add(seeds[0].entry)
                said += _missing(seeds, records)
    return said


def _kind(sources: int, without: int) -> Kind:
    if without == 1:
        return "transfer" if sources == 1 else "together"
    return "leave_one_out" if sources == 1 else "larger"


def _same_recipe(larger: Record, smaller: Record) -> bool | None:
    known = subset_fingerprints(larger).get(frozenset(smaller.tasks))
    return None if known is None else known == smaller.fingerprint


def _sentence(one: TaskSetEffect) -> str:
    kind = {
        "transfer": f"transfer from {one.sources[0]}",
        "leave_one_out": f"leaving out {one.sources[0]}",
        "together": f"learning together with {', '.join(one.sources)}",
        "larger": f"learning {', '.join(one.sources)} as well",
    }[one.kind]
    text = (
        f"{one.card}: {kind}: {points(one.difference, 1)} points with it [{points(one.low, 1)}, {points(one.high, 1)}]"
    )
    if one.loss_gain is not None:
        ends = f" [{one.gain_low:+.3f}, {one.gain_high:+.3f}]" if one.gain_low is not None else ""
        text += f"; Standley's gain of training losses {one.loss_gain:+.3f}{ends}"
    if one.same_recipe is False:
        text += "; the recipes differ in more than the tasks, so this is not what the tasks alone do"
    elif one.same_recipe is None:
        text += "; whether the recipes differ in nothing but the tasks, the records do not say"
    return f"{text}."


def _differ(a: Side, b: Side) -> bool:
    return any(a[card][0].tasks.keys() != b[card][0].tasks.keys() for card in a.keys() & b.keys())


def _missing(seeds: Sequence[Record], records: Sequence[Record]) -> list[str]:
    """Which runs the transfer matrix of an entry still needs."""
    first = seeds[0]
    wanted = subset_fingerprints(first)
    index = by_fingerprint(entries_of(records))
    numbers = [record.seed for record in seeds]
    known: dict[frozenset[str], dict[int, Record]] = {}
    for names, fingerprint in wanted.items():
        runs = [one for one in index.get(fingerprint, ()) if _scored_alike(one.records[0], names, first)]
        if runs:
            known[names] = {record.seed: record for record in by_preference(runs, numbers)[0].records}
    missing = missing_runs(sorted(first.tasks), wanted, known, numbers)
    text = missing_sentence(missing, first.entry)
    return [f"{first.name}: {text}"] if text else []


def _scored_alike(record: Record, names: frozenset[str], other: Record) -> bool:
    return (
        record.rankable
        and record.tasks.keys() == names
        and all(
            protocol_hash(record.tasks[card].protocol) == protocol_hash(other.tasks[card].protocol) for card in names
        )
    )
