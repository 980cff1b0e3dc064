"""Main effects of a grid: what each level of a factor does on average over the levels of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from harness.board.evidence import Evidence
from harness.board.records import Record
from harness.studies.contrasts import corrected, one_protocol, summed, value
from harness.studies.spec import Study

Arms = Mapping[str, Sequence[Record]]


def main_effects(study: Study, found: Arms, evidence: Evidence) -> list[dict[str, Any]]:
    """Each level beside the baseline's level of the same factor, averaged over the combinations of the other factors.

    The main effects of a factorial experiment (Montgomery, Design and Analysis of Experiments, chapter 5), where seeds
    are the replicates: differences are averaged within each seed, and the test is Student's t over seeds. Counting
    every combination as a replicate, too, would take as independent what shares initial weights and the order of the
    data. Averages are corrected as a family of their own (Holm 1979).

    Only combinations count that ran with both levels under one protocol and, if any did so with several seeds, with two
    in common at least; of the seeds, those that all of these have. An average is over two combinations or more, for one
    is a comparison of two arms.

    Args:
        study: What was asked. If its baseline is no arm of the grid, a factor's first level takes that one's place.
        found: Records by arm.
        evidence: The board's statistics.

    Returns:
        Plain JSON values, one dict per level and task: ``factor``, ``level``, ``against`` (the other level), ``card``,
        ``arms`` (pairs, the level's first), ``seeds``, ``first`` and ``second`` (mean over arms and seeds),
        ``difference``, ``low``, ``high``, ``p_value``, ``image_spread``, ``by_seed``, ``by_combination``, ``p_holm``,
        ``detectable``, ``verdict``.
    """
    combinations = study.combinations()
    usual = combinations.get(study.baseline) or next(iter(combinations.values()), {})
    rows = []
    for factor, level in ((factor, level) for factor, levels in study.grid.items() for level in levels):
        if level == usual[factor]:
            continue
        of_level = {name: own for name, own in combinations.items() if own[factor] == level}
        pairs = [(name, "-".join({**own, factor: usual[factor]}.values())) for name, own in of_level.items()]
        cards = chain.from_iterable(record.tasks for name, _ in pairs for record in found[name][:1])
        for card in dict.fromkeys(cards):
            effect = _effect(pairs, card, found, evidence)
            if effect is not None:
                rows.append({"factor": factor, "level": level, "against": usual[factor], "card": card, **effect})
    return corrected(rows)


def _effect(pairs: Sequence[tuple[str, str]], card: str, found: Arms, evidence: Evidence) -> dict[str, Any] | None:
    """The average over pairs of arms; None where fewer than two pairs can be compared under one protocol."""
    ran = [pair for pair in pairs if all(found[name] for name in pair)]
    there = [pair for pair in ran if one_protocol([found[name] for name in pair], card)]
    seeds = {pair: set.intersection(*({record.seed for record in found[name]} for name in pair)) for pair in there}
    enough = min(2, max(map(len, seeds.values()), default=0))
    there = [pair for pair in there if len(seeds[pair]) >= max(1, enough)]
    common = set.intersection(*(seeds[pair] for pair in there)) if there else set()
    sides = [[[record for record in found[pair[side]] if record.seed in common] for pair in there] for side in (0, 1)]
    if len(there) < 2 or not common or not one_protocol(chain(*sides), card):
        return None
    first, second = ([(1 / len(there), arm) for arm in side] for side in sides)
    change = summed(first, second, card, evidence)
    numbers = np.array([[[value(record, card) for record in arm] for arm in side] for side in sides])  # [2, pairs, S]
    differences = numbers[0] - numbers[1]
    return {
        "arms": [list(pair) for pair in there],
        "seeds": sorted(common),
        **change.model_dump(),
        "by_seed": differences.mean(axis=0).tolist(),
        "by_combination": differences.mean(axis=1).tolist(),
    }
