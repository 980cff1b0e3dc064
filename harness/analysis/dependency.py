"""How much each task depends on each token, and on its tokens being its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from harness.analysis.opening import Run
from harness.analysis.scores import difference, scored
from harness.analysis.tokens import Change, Visit, means, replaced, taken_from, zeroed
from harness.evaluation.metric import Result

Tokens = Mapping[str, Mapping[Visit, Tensor]]


def dependency(run: Run, tokens: Tokens, unchanged: Mapping[str, Result], draws: int) -> dict[str, Any]:
    """D[t, k]: task t's headline number with token k replaced at every site, minus the unchanged one.

    A token is replaced by its mean over the images at that site, so that it says nothing of the image and everything
    else stays. Tokens that never read (prefixes, placement output) are their own mean; they are replaced by zeros.

    Args:
        run: The run, with tokens.
        tokens: By task what was recorded at its sites.
        unchanged: Each task's result.
        draws: Of the bootstrap over images.

    Returns:
        ``replaced_by``, and ``tasks.<card>[]`` with ``token``, ``difference``, ``low``, ``high``; below 0 the task
        does worse without what the token says.
    """
    by = "mean" if vary(tokens) else "zero"
    found: dict[str, list[dict[str, Any]]] = {}
    total = sum(_count(tokens[name]) for name in unchanged)
    with run.reporter.bar("tokens replaced", total) as bar:
        for name, before in unchanged.items():
            average = means(tokens[name])
            found[name] = []
            for number in range(_count(tokens[name])):
                change = replaced(number, average) if by == "mean" else zeroed(number)
                found[name].append({"token": number, **difference(scored(run, name, change), before, draws)})
                bar.advance()
    return {"replaced_by": by, "tasks": found}


def controls(run: Run, tokens: Tokens, unchanged: Mapping[str, Result], draws: int) -> dict[str, list[dict[str, Any]]]:
    """What happens when all tokens are their means, zero, those of another image, or those of another task's images.

    Returns:
        By task a list of ``control`` (``mean``, ``zero``, ``shuffle``, ``swap``), ``source`` (of ``swap`` the other
        task, else None), ``difference``, ``low``, ``high``. Tokens that never read are the same for all images: then
        there is only ``zero``.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    with run.reporter.bar("controls", len(unchanged)) as bar:
        for name, before in unchanged.items():
            changes: list[tuple[str, str | None, Change]] = [("zero", None, zeroed())]
            if vary(tokens):
                changes.insert(0, ("mean", None, replaced(None, means(tokens[name]))))
                changes.append(("shuffle", None, taken_from(tokens[name])))
                for other in unchanged:
                    if other != name and _in_common(tokens[name], tokens[other]):
                        changes.append(("swap", other, taken_from(tokens[other], 0)))
            found[name] = [
                {"control": control, "source": source, **difference(scored(run, name, change), before, draws)}
                for control, source, change in changes
            ]
            bar.advance()
    return found


def vary(tokens: Tokens) -> bool:
    """Whether any token differs from sample to sample; those that never read do not."""
    return any(bool((found != found[:1]).any()) for own in tokens.values() for found in own.values())


def _count(tokens: Mapping[Visit, Tensor]) -> int:
    return next(iter(tokens.values())).shape[1] if tokens else 0


def _in_common(own: Mapping[Visit, Tensor], others: Mapping[Visit, Tensor]) -> bool:
    return any(visit in others and others[visit].shape[1:] == found.shape[1:] for visit, found in own.items())
