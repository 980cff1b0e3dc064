"""Two entries side by side: paired differences per task, Δm over tasks, cost, and a verdict in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import BaseModel, ConfigDict

from harness.board.breakdown import Part, breakdown, require_kinds
from harness.board.evidence import LEVEL, Estimate, Evidence, Paired
from harness.board.records import Protocol, Record, find_entry, read_records
from harness.board.relative import DeltaM, relative_change
from harness.board.robustness import DropComparison, compare_drops
from harness.board.tables import SCALAR_COSTS
from harness.board.task_sets import TaskSetEffect, effects, sentences
from harness.board.text import points, safe_terminal
from harness.errors import HarnessError
from harness.evaluation.resampling import holm

SIGNIFICANCE = 1 - LEVEL


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskComparison(_Document):
    """Two entries on one task.

    Attributes:
        card: Dataset card.
        task: classification, detection, segmentation or vqa.
        main: The headline number's name.
        a: First entry's number.
        b: Second entry's number.
        paired: First minus second on the same images, with its 95% bootstrap interval and uncorrected p.
        p_holm: p corrected over the tasks in common (Holm 1979).
        verdict: The outcome in words.
        by: Breakdowns that were asked for and that this task has, e.g. by class.
    """

    card: str
    task: str
    main: str
    a: Estimate
    b: Estimate
    paired: Paired
    p_holm: float
    verdict: str
    by: dict[str, list[Part]] = {}


class Comparison(_Document):
    """The outcome of `compare`.

    Attributes:
        a: First entry, ``name@fingerprint``.
        b: Second entry, or several that together are the baseline, joined by commas.
        seeds_a: Seeds of the first.
        seeds_b: Seeds of the second.
        tasks: One comparison for each task in common.
        only_a: Tasks that only the first has.
        only_b: Tasks that only the second has.
        drops: What corruptions cost the two, on tasks on which both have been scored under the same ones.
        effects: What the further tasks of one entry do to those in common, where it has all of the other's tasks.
        delta_m: Δm of the first against the second; None where a baseline number is 0.
        per_parameter: Δm for each percent of parameters that the first has more than the second (with fewer, it has the
            other sign); None where they have equally many or the number is unknown.
        cost_a: Mean cost over seeds.
        cost_b: Mean cost over seeds, summed over entries where the baseline is several.
        draws: Bootstrap draws, and random swaps.
        seed: Of both.
        verdict: All of it in a few sentences.
    """

    a: str
    b: str
    seeds_a: list[int]
    seeds_b: list[int]
    tasks: list[TaskComparison]
    drops: list[DropComparison] = []
    effects: list[TaskSetEffect] = []
    only_a: list[str]
    only_b: list[str]
    delta_m: DeltaM | None
    per_parameter: DeltaM | None
    cost_a: dict[str, float | None]
    cost_b: dict[str, float | None]
    draws: int
    seed: int
    verdict: list[str]

    def to_json(self) -> dict[str, Any]:
        """The comparison as plain JSON values."""
        return self.model_dump(mode="json")


def compare(board: Path, a: str, b: str, draws: int = 1000, seed: int = 0, by: Sequence[str] = ()) -> Comparison:
    """Compare two entries of a board, task by task on the same images.

    Args:
        board: The board's folder.
        a: First entry, as `find_entry` takes it.
        b: Second entry. Several, joined by commas, are one baseline together, e.g. a single-task model per task;
            no two of them may have a task in common.
        draws: Bootstrap draws for intervals, and random swaps for p-values.
        seed: Of both.
        by: Breakdowns to add to the tasks that have them: class (all but VQA), size (detection), category
            (segmentation), answer-type and question-type (VQA).

    Returns:
        The comparison. Differences are first minus second.

    Raises:
        HarnessError: An entry is unknown, nothing is in common, a task was scored under different protocols (the
            message names the field), no task has a breakdown, or statistics are missing or damaged.
    """
    records = read_records(board)
    evidence = Evidence(board, draws, seed, cached=False)
    first, second = find_entry(records, a), [find_entry(records, part.strip()) for part in b.split(",")]
    side_a, side_b = _side([first]), _side(second)
    shared = sorted(side_a.keys() & side_b.keys(), key=lambda card: (side_a[card][0].tasks[card].task, card))
    if not shared:
        raise HarnessError(
            f"{a!r} and {b!r} have no task in common ({', '.join(sorted(side_a))} against {', '.join(sorted(side_b))})"
        )
    for card in shared:
        _require_equal(card, a, side_a[card][0].tasks[card].protocol, b, side_b[card][0].tasks[card].protocol)

    require_kinds(by, {card: evidence.results(side_a[card][:1], card)[0] for card in shared} if by else {})
    paired = [evidence.paired(side_a[card], side_b[card], card) for card in shared]
    corrected = holm([outcome.p_value for outcome in paired])
    one_seed = len(first) == 1 or any(len(part) == 1 for part in second)
    tasks = []
    for card, outcome, p_holm in zip(shared, paired, corrected, strict=True):
        result = side_a[card][0].tasks[card]
        ours, base = (evidence.results(side[card], card) if by else [] for side in (side_a, side_b))
        tasks.append(
            TaskComparison(
                card=card,
                task=result.task,
                main=result.main,
                a=evidence.estimate(side_a[card], card),
                b=evidence.estimate(side_b[card], card),
                paired=outcome,
                p_holm=p_holm,
                verdict=verdict(outcome, p_holm),
                by={kind: breakdown(ours, base, kind, draws, seed) for kind in by if kind in ours[0].breakdowns},
            )
        )
    change = relative_change(evidence, {card: side_a[card] for card in shared}, {card: side_b[card] for card in shared})
    drops, of_drops = compare_drops(side_a, side_b, shared, seed)
    further = effects(side_a, side_b, dict(zip(shared, paired, strict=True)))
    cost_a, cost_b = _cost([first]), _cost(second)
    only_a, only_b = sorted(side_a.keys() - side_b.keys()), sorted(side_b.keys() - side_a.keys())
    return Comparison(
        a=first[0].entry,
        b=",".join(part[0].entry for part in second),
        seeds_a=[record.seed for record in first],
        seeds_b=sorted({record.seed for part in second for record in part}),
        tasks=tasks,
        drops=drops,
        effects=further,
        only_a=only_a,
        only_b=only_b,
        delta_m=change,
        per_parameter=_per_parameter(change, cost_a["parameters"], cost_b["parameters"]),
        cost_a=cost_a,
        cost_b=cost_b,
        draws=draws,
        seed=seed,
        verdict=_summary(tasks, change, only_a, only_b, one_seed, [*first, *(r for part in second for r in part)])
        + of_drops
        + sentences(further, side_a, side_b, records),
    )


def verdict(paired: Paired, p_corrected: float) -> str:
    """One task's outcome in words, A against B."""
    size = f"{points(paired.difference, 1)} points, 95% interval [{points(paired.low, 1)}, {points(paired.high, 1)}]"
    if p_corrected < SIGNIFICANCE:
        better = "A" if paired.difference > 0 else "B"
        difference, low, high = (
            (paired.difference, paired.low, paired.high)
            if better == "A"
            else (-paired.difference, -paired.high, -paired.low)
        )
        text = f"{better} is better by {100 * difference:.1f} points [{100 * low:.1f}, {100 * high:.1f}]"
        return text if low > 0 else f"{text}; the interval includes 0, but the test of the difference is decided"
    if paired.difference == paired.low == paired.high == 0:
        return f"A and B have the same outcome on each of the {paired.images:,} images"
    text = f"A and B cannot be told apart with {paired.images:,} images ({size})"
    if paired.low > 0 or paired.high < 0:
        if paired.p_value < SIGNIFICANCE:
            return f"{text}; the interval alone excludes 0, but not after correction for the number of tasks"
        return f"{text}; the interval excludes 0, but the test of the difference (p = {paired.p_value:.2f}) does not"
    if paired.images_needed is not None and paired.images_needed > paired.images:
        return f"{text}; about {paired.images_needed:,} would be needed if the difference is what it seems"
    return text


def _side(entries: Sequence[Sequence[Record]]) -> dict[str, list[Record]]:
    side: dict[str, list[Record]] = {}
    for records in entries:
        for card in records[0].tasks:
            if card in side:
                raise HarnessError(
                    f"{records[0].entry} and {side[card][0].entry} both have {card}; a baseline of several entries "
                    "needs each task once"
                )
            for record in records:
                if card not in record.tasks:
                    raise HarnessError(f"{record.id}: has no result on {card}, other seeds do; submit this seed again")
                _require_equal(
                    card, records[0].id, records[0].tasks[card].protocol, record.id, record.tasks[card].protocol
                )
            side[card] = list(records)
    return side


def _require_equal(card: str, a: str, first: Protocol, b: str, second: Protocol) -> None:
    for field, value in first.model_dump().items():
        other = getattr(second, field)
        if value != other:
            raise HarnessError(
                f"{card}: {a} and {b} cannot be compared: protocol field {field!r} is {safe_terminal(str(value))!r} "
                f"for one and {safe_terminal(str(other))!r} for the other; score both on the same data with one version"
            )


def _per_parameter(change: DeltaM | None, ours: float | None, base: float | None) -> DeltaM | None:
    """Parameter efficiency: Δm / (100 · added / base parameters)."""
    if change is None or not ours or not base or ours == base:
        return None
    added = 100 * (ours - base) / base
    low, high = sorted((change.low / added, change.high / added))
    return DeltaM(value=change.value / added, low=low, high=high, tasks=change.tasks)


def _cost(entries: Sequence[Sequence[Record]]) -> dict[str, float | None]:
    total: dict[str, float | None] = {}
    for key in SCALAR_COSTS:
        values: list[Any] = [getattr(record.cost, key) for records in entries for record in records]
        if any(value is None for value in values):
            total[key] = None
        elif key == "images_per_second":
            total[key] = fmean(values)
        elif key in ("peak_memory_bytes", "peak_gpu_memory_bytes"):
            total[key] = float(max(values))
        else:
            total[key] = sum(fmean(getattr(record.cost, key) for record in records) for records in entries)
    return total


def _summary(
    tasks: Sequence[TaskComparison],
    change: DeltaM | None,
    only_a: Sequence[str],
    only_b: Sequence[str],
    one_seed: bool,
    records: Sequence[Record],
) -> list[str]:
    sentences = [f"{task.card}: {task.verdict}." for task in tasks]
    if change is None:
        sentences.append("Δm is not defined: a baseline number is 0.")
    else:
        sign = "above" if change.low > 0 else "below" if change.high < 0 else "not distinguishable from"
        sentences.append(
            f"Δm of A against B over {len(change.tasks)} task{'s' * (len(change.tasks) != 1)} is {change.value:+.1f}% "
            f"[{change.low:+.1f}, {change.high:+.1f}], {sign} 0 (higher is better)."
        )
    if one_seed:
        sentences.append(
            "At least one side has a single seed: this speaks of these trained weights, not of the method; "
            "submit several seeds to speak of the method."
        )
    elif any(not task.paired.paired_seeds for task in tasks):
        sentences.append("The two have different numbers of seeds, so seeds are not paired: the intervals are wider.")
    for which, cards in (("A", only_a), ("B", only_b)):
        if cards:
            sentences.append(f"Only {which} has {', '.join(cards)}: not compared.")
    reasons = sorted({reason for record in records for reason in record.unrankable_because})
    if reasons:
        sentences.append(f"The board does not rank all of these records: {safe_terminal('; '.join(reasons))}.")
    return sentences
