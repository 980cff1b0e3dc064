"""What the statistics of a board's records say: intervals and paired differences, each computed once.

Resampling is the slow part of a board, and its outcome depends on the statistics, the draws and the seed alone. So
outcomes are kept in ``.cache/`` inside the board under a hash of exactly those. Deleting it changes no byte of the
board; `harness leaderboard --verify` does not read it.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from harness.atomic import write_bytes, write_text
from harness.board.records import STATISTICS, Record, hash_arrays, read_statistics
from harness.errors import HarnessError
from harness.evaluation.metric import Result
from harness.evaluation.permutation import permutation_p_value
from harness.evaluation.resampling import PairedDifference, entry_interval, images_needed, paired_difference

CACHE = Path(".cache") / "resampling.json"
VERSION = 6  # raised when the same statistics could give another outcome
LEVEL = 0.95
READ_BYTES = 1 << 20  # of a statistics file at a time
IN_MEMORY = 1 << 28  # bytes of statistics that are kept unpacked


class Estimate(BaseModel):
    """A headline number with its 95% interval over images (and seeds, where there are several).

    Attributes:
        value: Mean over seeds, a fraction.
        low: Lower end.
        high: Upper end.
        method: How the interval was made.
        images: How many images the statistics hold.
        image_lists: SHA-256 of their ids one per line, sorted as text and sorted as numbers.
        classes: SHA-256 of what else all entries under one protocol share, such as the names of the classes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    value: float
    low: float
    high: float
    method: str
    images: int
    image_lists: tuple[str, str]
    classes: str

    @property
    def ids(self) -> tuple[str, str]:
        """The same for the same images and classes."""
        return self.image_lists[0], self.classes


class Paired(BaseModel):
    """A paired difference of two entries on one task's images.

    Attributes:
        difference: First minus second, in fractions.
        low: Lower end of the 95% interval.
        high: Upper end.
        p_value: Two-sided, uncorrected.
        p_method: How it was made: by random swaps of images between the sides, unless their numbers of seeds differ.
        images: Images in common.
        images_needed: About how many would tell the two apart; None if they are told apart or no number would do.
        paired_seeds: Whether both sides have equally many seeds, more than one, compared position by position.
        image_spread: Standard deviation of the difference over draws of images alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    difference: float
    low: float
    high: float
    p_value: float
    p_method: str
    images: int
    images_needed: int | None
    paired_seeds: bool
    image_spread: float


Kind = TypeVar("Kind", bound=BaseModel)
Shown = tuple[str, Sequence[Record]]  # a card, and the records (seeds) whose statistics on it count


class Evidence:
    """Intervals and paired differences of a board's records.

    Args:
        board: The board's folder.
        draws: Bootstrap draws.
        seed: Seed of the bootstrap.
        cached: Whether to use and keep outcomes in the board's cache.
        keep_in: File in the board's folder that outcomes are kept in, if not that of the board itself, whose outcomes
            are used, too.
    """

    def __init__(
        self, board: Path, draws: int = 1000, seed: int = 0, cached: bool = True, keep_in: Path = CACHE
    ) -> None:
        if not 100 <= draws <= 1_000_000:
            raise HarnessError(f"draws: {draws} is not between 100 and 1,000,000")
        if not 0 <= seed < 2**63:
            raise HarnessError(f"seed: {seed} is not between 0 and 2**63 - 1")
        self.board, self.draws, self.seed, self.cached = board, draws, seed, cached
        self._file = board / keep_in
        self._kept = _load(self._file) if cached else {}
        self._known = self._kept if keep_in == CACHE or not cached else _load(board / CACHE) | self._kept
        self._used: dict[str, Any] = {}
        self._results: dict[str, dict[str, Result]] = {}
        self._sizes: dict[str, int] = {}
        self._in_memory = 0
        self._content: dict[str, str] = {}
        self._names: dict[tuple[str, str], orjson.Fragment] = {}
        self._drawn: dict[tuple[str, str], dict[tuple[int, int], NDArray[np.float64]]] = defaultdict(dict)

    def estimate(self, records: Sequence[Record], card: str) -> Estimate:
        """An entry's headline number on a card, with its interval.

        Raises:
            HarnessError: Statistics are missing, damaged, or not those of the records.
        """

        def compute() -> Estimate:
            results = self.results(records, card)
            interval = entry_interval(results, self.draws, self.seed)
            ids = sorted(results[0].ids.tolist())
            numeric = sorted(ids, key=lambda text: (len(text), text))  # how numbers without leading zeros are ordered
            lists = [hashlib.sha256("\n".join(order).encode()).hexdigest() for order in (ids, numeric)]
            return Estimate(
                value=interval.estimate,
                low=interval.low,
                high=interval.high,
                method=interval.method,
                images=len(ids),
                image_lists=(lists[0], lists[1]),
                classes=hash_arrays(results[0].shared()),
            )

        return self.outcome(Estimate, compute, "estimate", (card, records))

    def paired(self, a: Sequence[Record], b: Sequence[Record], card: str) -> Paired:
        """The difference of two entries on a card, `a` minus `b`. Both must have equal protocols there.

        Raises:
            HarnessError: Statistics are missing, damaged, or not those of the records.
        """
        if [record.id for record in a] > [record.id for record in b]:  # one computation serves both directions
            swapped = self.paired(b, a, card)
            return swapped.model_copy(
                # Not -x: nobody wants to read of a difference of -0.
                update={"difference": 0 - swapped.difference, "low": 0 - swapped.high, "high": 0 - swapped.low}
            )

        def compute() -> Paired:
            outcome = paired_difference(self.results(a, card), self.results(b, card), self.draws, self.seed)
            p, method = self._tested(outcome, self.results(a, card), self.results(b, card))
            return Paired(
                difference=outcome.difference,
                low=outcome.interval.low,
                high=outcome.interval.high,
                p_value=p,
                p_method=method,
                images=outcome.images,
                images_needed=images_needed(outcome),
                paired_seeds=outcome.paired_seeds,
                image_spread=outcome.image_spread,
            )

        return self.outcome(Paired, compute, "paired", (card, a), (card, b))

    def _tested(self, outcome: PairedDifference, a: Sequence[Result], b: Sequence[Result]) -> tuple[float, str]:
        """The p-value of a permutation test, and how it was made.

        Swapping images does not see how training seeds scatter. So with several seeds the p-value is at least that of
        the two-level bootstrap, which does; a difference has to pass both.
        """
        if len(a) != len(b):
            return outcome.p_value, f"two-level bootstrap, because {len(a)} and {len(b)} seeds cannot be paired"
        p = permutation_p_value(a, b, self.draws, self.seed, tail=True)
        method = f"permutation, {self.draws:,} random swaps of images"
        method += ", of which none comes up to the difference: normal tail" if p < 1 / (1 + self.draws) else ""
        if len(a) > 1:
            return max(p, outcome.p_value), f"{method}; {len(a)} paired seeds: at least the two-level bootstrap's p"
        return p, method

    def results(self, records: Sequence[Record], card: str) -> list[Result]:
        """The statistics of each record on a card; those used last stay in memory."""
        return [self._read(record)[card] for record in records]

    def outcome(self, kind: type[Kind], compute: Callable[[], Kind], name: str, *shown: Shown) -> Kind:
        """What `compute` gives, from the cache where it is there.

        Args:
            kind: What it gives.
            compute: Resamples.
            name: What is computed.
            shown: All statistics that it depends on.

        Raises:
            HarnessError: It is undefined, or statistics are missing.
        """
        content = [(card, [self._named(record, card) for record in records]) for card, records in shown]
        key = hashlib.sha256(orjson.dumps([VERSION, name, self.draws, self.seed, content])).hexdigest()
        try:
            outcome = kind.model_validate(self._known[key])
            self._used[key] = self._known[key]
            return outcome
        except (KeyError, ValidationError):
            try:
                outcome = compute()
            except ValidationError:  # NaN: some draws of images leave the number undefined, or all do
                names = " and ".join(dict.fromkeys(records[0].entry for _, records in shown))
                cards = ", ".join(dict.fromkeys(card for card, _ in shown))
                raise HarnessError(f"{names}: {cards}: the interval is undefined; there are too few images") from None
        self._used[key] = outcome.model_dump()
        return outcome

    def save(self) -> None:
        """Keep the outcomes that were asked for, and forget all others."""
        if self.cached and self._used != self._kept:
            write_text(self.board / CACHE.parent / ".gitignore", "*\n")
            write_bytes(self._file, orjson.dumps(self._used, option=orjson.OPT_SORT_KEYS))

    def _read(self, record: Record) -> dict[str, Result]:
        results = self._results.pop(record.id, None)
        if results is None:
            results = read_statistics(self.board, record)
            for card, result in results.items():
                result.kept_draws = self._drawn[record.id, card]
            arrays = [array for result in results.values() for array in result.statistics.values()]
            self._sizes[record.id] = sum(array.nbytes for array in arrays)
            self._in_memory += self._sizes[record.id]
        self._results[record.id] = results  # last used, last dropped
        while self._in_memory > IN_MEMORY and len(self._results) > 1:
            oldest = next(iter(self._results))
            del self._results[oldest]
            self._in_memory -= self._sizes.pop(oldest)
        return results

    def _named(self, record: Record, card: str) -> orjson.Fragment:
        """All that an outcome depends on of one record and card: seed, protocol, statistics, and their file."""
        key = record.id, card
        if key not in self._names:
            task = record.tasks[card]
            named = {"protocol": task.protocol.model_dump(), "statistics": task.statistics}
            self._names[key] = orjson.Fragment(orjson.dumps((record.seed, named, self._hash(record))))
        return self._names[key]

    def _hash(self, record: Record) -> str:
        """SHA-256 of the statistics file as it is now: an outcome is never used for a file that changed."""
        if record.id not in self._content:
            path = self.board / f"records/{record.id}/{STATISTICS}"
            try:
                with path.open("rb", buffering=0) as file:
                    digest = hashlib.sha256()
                    while part := file.read(READ_BYTES):
                        digest.update(part)
                    self._content[record.id] = digest.hexdigest()
            except OSError as error:
                raise HarnessError(f"{path}: cannot be read ({error.strerror}); restore it or submit again") from None
        return self._content[record.id]


def _load(file: Path) -> dict[str, Any]:
    try:
        known = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError):  # a cache that is not there or broken costs time, nothing else
        return {}
    return known if isinstance(known, dict) else {}
