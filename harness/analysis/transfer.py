"""What tasks do to each other, from the records of a submission's subsets of tasks on a board."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from math import ceil, factorial
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from harness.board.entries import by_preference, entries_of, protocol_hash
from harness.board.evidence import Evidence
from harness.board.records import Record
from harness.evaluation.resampling import contrast

if TYPE_CHECKING:
    from harness.submission import Submission

TAIL = 10  # the last of so many parts of a curve is the final loss


class Contrast(BaseModel):
    """A sum of headline numbers with its 95% interval."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    value: float
    low: float
    high: float


Subset = frozenset[str]  # of data sets
Known = Mapping[Subset, Mapping[int, Record]]  # by subset, then by seed
Terms = Mapping[Subset, float]  # a sum of headline numbers, each of a network that learned a subset of the tasks


def records_of(
    subsets: Mapping[Subset, Submission | str], records: Sequence[Record]
) -> dict[Subset, dict[int, Record]]:
    """The records of each subset, by seed; under whatever name the board has them."""
    found: dict[Subset, dict[int, Record]] = {}
    for names, submission in subsets.items():
        if not isinstance(submission, str):
            fingerprint = submission.fingerprint()
            # The same submission may stand on the board under several names.
            for entry in by_preference(entries_of(one for one in records if one.fingerprint == fingerprint)):
                for record in entry.records:
                    found.setdefault(names, {}).setdefault(record.seed, record)
    return found


def pair_terms(source: str, target: str) -> Terms:
    """T[s -> t] = m_t(s, t) - m_t(t): what learning s as well does to t (Standley et al. 2020, section 3)."""
    return {frozenset({source, target}): 1.0, frozenset({target}): -1.0}


def leave_one_out_terms(tasks: Sequence[str], source: str, target: str) -> Terms:
    """m_t(all) - m_t(all but s): what s still adds when all others are there."""
    everything = frozenset(tasks)
    return {everything: 1.0, everything - {source}: -1.0}


def total_terms(tasks: Sequence[str], target: str) -> Terms:
    """m_t(all) - m_t(t): what learning together does to t."""
    return {frozenset(tasks): 1.0, frozenset({target}): -1.0}


def shapley_terms(tasks: Sequence[str], source: str, target: str) -> Terms:
    """The share of task s in what learning together does to task t.

    The mean, over all orders in which the other tasks can join t, of the change of m_t when s joins:
    phi_s = sum over S of |S|! (n - |S| - 1)! / n! (m_t(S + s + t) - m_t(S + t)), where S goes over the subsets of the n
    tasks besides t that do not hold s. The shares of all s add up to m_t(all) - m_t(t).

    Source:
        Shapley 1953, "A Value for n-Person Games".
    """
    others = [task for task in tasks if task not in (source, target)]
    players = len(tasks) - 1
    terms: dict[Subset, float] = {}
    for size in range(players):
        weight = factorial(size) * factorial(players - size - 1) / factorial(players)
        for chosen in combinations(others, size):
            terms[frozenset({*chosen, source, target})] = weight
            terms[frozenset({*chosen, target})] = -weight
    return terms


def estimated(terms: Terms, target: str, known: Known, evidence: Evidence) -> dict[str, Any] | None:
    """A sum of headline numbers of one task with its 95% interval, over the seeds and images that all have.

    Returns:
        ``value``, ``low``, ``high``, ``seeds``; None where a record is missing, no seed is common to all, or they were
        not scored alike.

    Raises:
        HarnessError: Statistics are missing, damaged, or of too few images for an interval.
    """
    if not terms.keys() <= known.keys():
        return None
    seeds = sorted(set.intersection(*(set(known[names]) for names in terms)))
    records = [[known[names][seed] for seed in seeds] for names in terms]
    if not seeds or len({protocol_hash(one.tasks[target].protocol) for side in records for one in side}) > 1:
        return None

    def compute() -> Contrast:
        results = [evidence.results(side, target) for side in records]
        found = contrast(results, list(terms.values()), evidence.draws, evidence.seed)
        return Contrast(value=found.estimate, low=found.low, high=found.high)

    # The cache knows a contrast by its factors and by the statistics that these stand before.
    name = f"contrast {' '.join(map(repr, terms.values()))}"
    outcome = evidence.outcome(Contrast, compute, name, *((target, side) for side in records))
    return {**outcome.model_dump(), "seeds": seeds}


def matrix(
    tasks: Sequence[str], make: Callable[[str, str], Terms], known: Known, evidence: Evidence
) -> dict[str, dict[str, dict[str, Any] | None]]:
    """By source and target task what `make` is made of; see `estimated`."""
    return {
        source: {
            target: estimated(make(source, target), target, known, evidence) for target in tasks if target != source
        }
        for source in tasks
    }


def loss_gains(tasks: Sequence[str], known: Known) -> dict[str, dict[str, Any] | None]:
    """Standley's gain L_single / L_joint - 1 of each task, above 0 where learning together has the lower loss.

    Of training losses, each the mean over the last tenth of the task's own points, for records hold no others: what it
    says of new images the headline numbers tell. Mean over common seeds.

    Returns:
        By task ``gain``, ``low``, ``high``, ``single``, ``joint`` and ``seeds``, or None where a record or its curve is
        missing, or ends long before the run does (see `final_loss`). The 95% interval is Student's, over seeds, so a
        single seed has None for its ends.

    Source:
        Standley et al. 2020, section 4 (arXiv:1905.07553).
    """
    everything = known.get(frozenset(tasks), {})
    return {task: loss_gain(task, known.get(frozenset({task}), {}), everything) for task in tasks}


def loss_gain(task: str, alone: Mapping[int, Record], together: Mapping[int, Record]) -> dict[str, Any] | None:
    """One task's gain, of records by seed; see `loss_gains`."""
    seeds = sorted(alone.keys() & together.keys())
    pairs = [(final_loss(alone[seed], task), final_loss(together[seed], task)) for seed in seeds]
    complete = [(single, joint) for single, joint in pairs if single is not None and joint]
    if not complete or len(complete) < len(pairs):
        return None
    gains = [single / joint - 1 for single, joint in complete]
    low, high = student_interval(gains)
    return {
        "gain": fmean(gains),
        "low": low,
        "high": high,
        "single": fmean(single for single, _ in complete),
        "joint": fmean(joint for _, joint in complete),
        "seeds": seeds,
    }


def student_interval(values: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    """95% interval of the mean of independent values (one per seed), or nothing for fewer than two."""
    if len(values) < 2:
        return None, None
    from scipy.special import stdtrit  # a tenth of a second that boards without such numbers need not wait

    half = float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / len(values) ** 0.5
    return fmean(values) - half, fmean(values) + half


def final_loss(record: Record, task: str) -> float | None:
    """Mean training loss over the last tenth of a task's points, one at least.

    Points are the task's own, so that a loss is the same whenever in the run the task was trained.

    Returns:
        None without a curve, or where it ends before the last tenth of the run's steps, as under `continual`: what the
        task's loss is after what was learned since, nothing tells.
    """
    losses = {name: curve for name, curve in record.curves.items() if name.startswith("loss/")}
    curve = [(step, value) for step, value in losses.get(f"loss/{task}", ()) if value is not None]
    if not curve:
        return None
    end = max(points[-1][0] for points in losses.values() if points)
    if TAIL * curve[-1][0] <= (TAIL - 1) * end:
        return None
    return fmean(value for _, value in curve[-ceil(len(curve) / TAIL) :])
