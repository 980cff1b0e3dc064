"""Weighted sums of several entries' numbers on the same images: their intervals and tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.errors import HarnessError
from harness.evaluation.metric import Result
from harness.evaluation.resampling.differences import PairedDifference, compare_draws
from harness.evaluation.resampling.intervals import Interval
from harness.evaluation.resampling.levels import check_sides, reduce_sides

Terms = Sequence[tuple[float, Sequence[Result]]]  # coefficients, and entries: one result per training seed


def contrast(
    entries: Sequence[Sequence[Result]], coefficients: Sequence[float], draws: int = 1000, seed: int = 0
) -> Interval:
    """95% interval of a sum of several entries' headline numbers, each times a coefficient, on the same images.

    As `paired_difference`, which is the contrast of 1 and -1: all entries are reduced under the same draws, and their
    seeds are paired position by position.

    Args:
        entries: For each entry one result per training seed; equally many for all.
        coefficients: One per entry.
        draws: Bootstrap draws, at least 2.
        seed: Of the draws.

    Raises:
        HarnessError: No results, different numbers of seeds, or results of different metrics or images.
    """
    return paired_sums(list(zip(coefficients, entries, strict=True)), [], draws, seed).interval


def paired_sums(first: Terms, second: Terms, draws: int = 1000, seed: int = 0) -> PairedDifference:
    """Compare two sums of entries' headline numbers, each times a coefficient, on the same images.

    As `paired_difference`, of sums: each sum is taken seed by seed, so all entries must have the same seeds, in the
    same order. The p-value goes beyond what the draws can show, as in `paired_breakdown`. Whether a change does more in
    one setting than in another, (a - b) - (c - d), is the difference of the sums of 1, -1 and 1, -1.

    Args:
        first: What is added up on the one side.
        second: On the other; nothing is 0.
        draws: Bootstrap draws, at least 2.
        seed: Of the draws.

    Returns:
        `a` and `b` are the two sums.

    Raises:
        HarnessError: No results, results of different metrics or images, or unequal numbers of seeds.
    """
    entries = [list(entry) for _, entry in (*first, *second)]
    seeds = [len(entry) for entry in entries]
    check_sides([result for entry in entries for result in entry], draws, seeds)
    if len(set(seeds)) > 1:
        raise HarnessError(
            f"contrast: the entries have different numbers of seeds, {seeds}, which cannot be paired; give those that"
            " all of them have"
        )
    estimates, drawn = reduce_sides(entries, draws, seed)
    factors = np.array([factor for factor, _ in (*first, *second)])
    sides = (slice(len(first)), slice(len(first), None))
    by_seed, over_images = (
        [np.tensordot(factors[side], numbers[side], 1) for side in sides]
        for numbers in (np.stack(estimates), np.stack(drawn))
    )
    return compare_draws(by_seed, over_images, seed, len(entries[0][0].ids), tail=True)
