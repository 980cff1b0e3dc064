"""Entries: the records that belong together, as the board ranks them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from statistics import fmean
from typing import Any

import orjson

from harness.board.records import TRUST, Protocol, Record

Column = tuple[str, str]  # a card and the hash of its protocol


@dataclass(frozen=True)
class Entry:
    """All seeds of one entry that were scored alike.

    Attributes:
        key: ``name@fingerprint``, with the seeds appended where the seeds of an entry were not scored alike.
        records: One per seed.
        problems: Why it is not ranked; empty if it is.
    """

    key: str
    records: tuple[Record, ...]
    problems: tuple[str, ...]

    @cached_property
    def columns(self) -> dict[str, Column]:
        """For each card what its number can be compared with."""
        return {card: (card, protocol_hash(result.protocol)) for card, result in self.records[0].tasks.items()}

    @property
    def trust(self) -> str:
        """What is proven of all its seeds."""
        return min((record.trust for record in self.records), key=TRUST.index)

    def value(self, card: str) -> float:
        """Headline number, mean over seeds. Defined for ranked entries."""
        values = [record.tasks[card].value for record in self.records]
        return fmean(value for value in values if value is not None)


@lru_cache(maxsize=1024)  # the entries of a board share a few
def protocol_hash(protocol: Protocol) -> str:
    """12 hex digits that are equal for equal protocols."""
    return hashlib.sha256(orjson.dumps(protocol.model_dump(), option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]


def entries_of(records: Iterable[Record]) -> list[Entry]:
    """Group records into entries: same name and fingerprint, scored under the same protocols, all rankable or none."""
    groups: dict[str, dict[Any, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in sorted(records, key=lambda record: (record.name, record.fingerprint, record.seed)):
        protocols = tuple(sorted((card, protocol_hash(task.protocol)) for card, task in record.tasks.items()))
        groups[record.entry][(record.rankable, protocols)].append(record)
    entries = []
    for name, parts in groups.items():
        for part in parts.values():
            seeds = ", ".join(str(record.seed) for record in part)
            problems = sorted({reason for record in part for reason in record.unrankable_because})
            for card in part[0].tasks:
                if any(record.tasks[card].value is None for record in part):
                    problems.append(f"{card}: {part[0].tasks[card].main} is undefined")
            key = name if len(parts) == 1 else f"{name} (seeds {seeds})"
            entries.append(Entry(key, tuple(part), tuple(problems)))
    return entries


def by_preference(entries: Iterable[Entry], seeds: Collection[int] = ()) -> list[Entry]:
    """Entries of one submission under several names, the one that stands for it first.

    Anybody can copy a submission, give it a name and hand in other numbers, so neither the name nor the order decides
    where something else does: the entry that could be ranked, then the one that is trusted most, then the one with most
    of the seeds that it is compared with, then with most seeds.

    Args:
        entries: Of the same fingerprint.
        seeds: Of what they are compared with, where that is known.
    """

    def key(entry: Entry) -> tuple[bool, int, int, int, str]:
        shared = len({record.seed for record in entry.records} & set(seeds))
        return bool(entry.problems), -TRUST.index(entry.trust), -shared, -len(entry.records), entry.key

    return sorted(entries, key=key)
