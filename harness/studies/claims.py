"""Claims that are stated beforehand: that an arm beats not only the plain network, but every control as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.board.records import Record
from harness.evaluation.resampling import holm
from harness.studies.power import SIGNIFICANCE
from harness.studies.spec import Claim

Outcomes = Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]  # (arm, against) → comparisons, one per task


def judged(claims: Sequence[Claim], outcomes: Outcomes, found: Mapping[str, Sequence[Record]]) -> list[dict[str, Any]]:
    """What the runs say of each claim, on each task.

    A claim holds on a task if its arm is better than *every* arm that it has to beat. That is an intersection-union
    test (Berger 1982): its p-value is the largest of the single ones, and needs no correction for how many arms there
    are to beat. It is contradicted if the arm is worse than the first of them. p-values of all claims and tasks are
    corrected as one family (Holm 1979), apart from the many comparisons that a study also shows.

    Args:
        claims: As the study states them.
        outcomes: The comparisons of each claim's arm with those that it has to beat.
        found: Records by arm.

    Returns:
        Plain JSON values: per claim ``claim``, ``arm``, ``beats``, ``missing`` (arms without a run to compare),
        ``tasks`` (``card``, ``p_value``, ``p_holm``, ``verdict``, ``against``: the single comparisons), ``sentence``.
    """
    documents: list[dict[str, Any]] = []
    family: list[dict[str, Any]] = []
    for claim in claims:
        missing = [name for name in (claim.arm, *claim.beats) if not found[name]]
        tasks = []
        by_card: dict[str, list[Mapping[str, Any]]] = {}
        for other in claim.beats:
            for one in outcomes[claim.arm, other]:
                by_card.setdefault(one["card"], []).append(one)
        for card, against in by_card.items():
            if missing or len(against) < len(claim.beats):
                continue
            p_value, sign = direction([(one["difference"], one["p_value"]) for one in against])
            tasks.append({"card": card, "p_value": p_value, "sign": sign, "against": list(against)})
        family += tasks
        documents.append({**claim.model_dump(mode="json"), "missing": missing, "tasks": tasks})
    for task, p in zip(family, holm([task["p_value"] for task in family]) if family else [], strict=True):
        task["p_holm"] = p
        task["verdict"] = decided(task.pop("sign"), p)
    for document in documents:
        document["sentence"] = _sentence(document)
    return documents


def direction(against: Sequence[tuple[float, float]]) -> tuple[float, int]:
    """The p-value of a claim on one task, and which way it points.

    Args:
        against: Difference and two-sided p-value of the comparison with each arm that has to be beaten, the plain
            network first.

    Returns:
        The largest p-value and 1 where every difference is above zero; the first one and -1 where the first difference
        is below; 1.0 and 0 otherwise.
    """
    if all(difference > 0 for difference, _ in against):
        return max(p for _, p in against), 1
    first, p = against[0]
    return (p, -1) if first < 0 else (1.0, 0)


def decided(sign: int, p_holm: float) -> str:
    """``supported``, ``contradicted`` or ``not told apart``."""
    if p_holm < SIGNIFICANCE and sign:
        return "supported" if sign > 0 else "contradicted"
    return "not told apart"


def _sentence(document: Mapping[str, Any]) -> str:
    claim = document["claim"].rstrip(".")
    if document["missing"]:
        return f"“{claim}”: open, for {', '.join(document['missing'])} did not run."
    if not document["tasks"]:
        return f"“{claim}”: open, for there is no task on which all its arms can be compared."
    parts = []
    for verdict in ("supported", "contradicted", "not told apart"):
        cards = [task["card"] for task in document["tasks"] if task["verdict"] == verdict]
        if cards:
            words = f"worse than {document['beats'][0]}, so contradicted" if verdict == "contradicted" else verdict
            parts.append(f"{words} on {', '.join(cards)}")
    return f"“{claim}”: {'; '.join(parts)}."
