"""When more seeds of an arm are not worth their time: they would hardly change what is said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.studies.claims import direction
from harness.studies.power import SIGNIFICANCE, p_values
from harness.studies.spec import Claim, Stop

DRAWS = 2000


def chances_of_change(
    contrasts: Sequence[Mapping[str, Any]],
    claims: Sequence[Mapping[str, Any]],
    planned: Mapping[str, int],
    interactions: Sequence[Mapping[str, Any]] = (),
    effects: Sequence[Mapping[str, Any]] = (),
    seed: int = 0,
) -> dict[str, float]:
    """For each arm the probability that with all its seeds something else would be said of it.

    Predictive probability (Spiegelhalter, Freedman and Blackburn 1986): the differences of the seeds to come are drawn
    from what those so far tell, mean and variance unknown, as Student's t; then all tests of the study are made as they
    would be at the end, with their corrections.

    Args:
        contrasts: Every comparison of an arm with its reference (`harness.studies.contrasts.corrected`).
        claims: The claims (`harness.studies.claims.judged`).
        planned: How many seeds each arm has in the end.
        interactions: The differences of differences (`harness.studies.interactions.answered`).
        effects: The averages over a grid (`harness.studies.main_effects.main_effects`).
        seed: Of the draws.

    Returns:
        By arm; 1.0 where fewer than two seeds say anything.
    """
    generator = np.random.default_rng([seed, 11])

    @cache
    def future(arm: str, against: str, card: str) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        one = known[arm, against, card]
        return _final(one, min(planned[arm], planned[against]), generator)

    known = {_key(one): one for one in contrasts}
    known |= {_key(one): one for claim in claims for task in claim["tasks"] for one in task["against"]}
    chances: dict[str, float] = {}

    def note(arm: str, chance: float) -> None:
        chances[arm] = max(chances.get(arm, 0.0), chance)

    futures = [future(*_key(one)) for one in contrasts]
    _judge(contrasts, [(one["arm"],) for one in contrasts], futures, note)
    tasks = [(Claim.model_validate(_only(claim)), task) for claim in claims for task in claim["tasks"]]
    parts = [[future(*_key(one)) for one in task["against"]] for _, task in tasks]
    _judge_claims(tasks, parts, note)
    asked = [(*one["more"], *one["than"]) for one in interactions]
    averaged = [tuple(chain.from_iterable(one["arms"])) for one in effects]
    for rows, arms in ((interactions, asked), (effects, averaged)):
        last = [
            _final(one, min(planned[name] for name in names), generator) for one, names in zip(rows, arms, strict=True)
        ]
        _judge(rows, arms, last, note)
    return chances


def settled(stop: Stop | None, seeds: int, chance: float | None) -> bool:
    """Whether an arm needs no more seeds.

    Args:
        stop: The study's rule.
        seeds: How many the arm has.
        chance: That more of them would change what is said of it; None where nothing is said of it.
    """
    return stop is not None and seeds >= stop.after and chance is not None and chance <= stop.risk


def _judge(rows: Any, arms: Any, futures: Any, note: Any) -> None:
    """Note for the arms of each row of one family how likely its verdict is another in the end."""
    for names, final in zip(arms, futures, strict=True):
        for name in names if final is None else ():
            note(name, 1.0)
    there = [every for every in zip(rows, arms, futures, strict=True) if every[2] is not None]
    if not there:
        return
    corrected = holm_columns(np.array([p for _, _, (_, p) in there]))
    for (one, names, (difference, _)), p in zip(there, corrected, strict=True):
        said = np.where(p >= SIGNIFICANCE, 0, np.sign(difference))
        now = {"better": 1, "more": 1, "worse": -1, "less": -1}.get(one["verdict"], 0)
        for name in names:
            note(name, float(np.mean(said != now)))


def _judge_claims(tasks: Any, parts: Any, note: Any) -> None:
    there = []
    for (claim, task), finals in zip(tasks, parts, strict=True):
        if any(final is None for final in finals):
            for name in (claim.arm, *claim.beats):
                note(name, 1.0)
        else:
            there.append((claim, task, finals))
    if not there:
        return
    pointed = [
        [direction([(float(d[n]), float(p[n])) for d, p in finals]) for n in range(DRAWS)] for _, _, finals in there
    ]
    corrected = holm_columns(np.array([[p for p, _ in row] for row in pointed]))
    for (claim, task, _), row, p in zip(there, pointed, corrected, strict=True):
        said = np.where(p < SIGNIFICANCE, [sign for _, sign in row], 0)
        now = {"supported": 1, "contradicted": -1}.get(task["verdict"], 0)
        for name in (claim.arm, *claim.beats):
            note(name, float(np.mean(said != now)))


def holm_columns(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Holm's correction of every column of float64 [family, draws] by itself."""
    family = len(p_values)
    order = np.argsort(p_values, axis=0, kind="stable")
    factors = np.arange(family, 0, -1)[:, None]
    ordered = np.maximum.accumulate(np.minimum(1.0, factors * np.take_along_axis(p_values, order, 0)), axis=0)
    corrected = np.empty_like(ordered)
    np.put_along_axis(corrected, order, ordered, axis=0)
    return corrected


def _final(
    one: Mapping[str, Any], planned: int, generator: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Difference and p-value with all seeds, float64 [draws] each; None if there are fewer than two seeds so far."""
    so_far = np.asarray(one["by_seed"], dtype=np.float64)
    count, left = len(so_far), planned - len(so_far)
    if left <= 0:
        return np.full(DRAWS, one["difference"]), np.full(DRAWS, one["p_value"])
    if count < 2:
        return None
    variance = so_far.var(ddof=1) * (count - 1) / generator.chisquare(count - 1, DRAWS)
    mean = so_far.mean() + np.sqrt(variance / count) * generator.standard_normal(DRAWS)
    coming = mean[:, None] + np.sqrt(variance)[:, None] * generator.standard_normal((DRAWS, left))
    everything = np.concatenate([np.broadcast_to(so_far, (DRAWS, count)), coming], axis=1)
    difference = everything.mean(axis=1)
    errors = everything.std(axis=1, ddof=1) / planned**0.5
    return difference, p_values(difference, errors, planned - 1, one["image_spread"])


def _key(one: Mapping[str, Any]) -> tuple[str, str, str]:
    return one["arm"], one["against"], one["card"]


def _only(claim: Mapping[str, Any]) -> dict[str, Any]:
    return {key: claim[key] for key in Claim.model_fields}
