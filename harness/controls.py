"""The matched controls of a submission with placeholder tokens: each takes away one thing and keeps the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from harness.errors import HarnessError
from harness.training.placeholders.requirements import KEYS

Control = Literal[
    "plain",
    "frozen_random",
    "read_off",
    "write_off",
    "equal_parameters",
    "equal_compute",
    "per_task_banks",
    "masked",
    "shuffled_labels",
    "output_placement",
]
Document = dict[str, Any]  # a whole submission, as plain JSON values

_SIZES = ("count", "width", "attention_width", "heads", "stages")


def controlled(name: str, document: Mapping[str, Any], macs: Callable[[Mapping[str, Any]], int]) -> Document:
    """A submission turned into one of its controls.

    Args:
        name: Which one.
        document: The submission, with every default written out.
        macs: Multiply-adds of one training step of a submission; asked for by ``equal_compute`` only.

    Returns:
        The control's submission, called ``<name>-<control>``.

    Raises:
        HarnessError: The submission has no tokens that something could be taken from.
    """
    if not document["model"]["placeholders"]["count"]:
        raise HarnessError(
            f"control: {name}: a control takes something from placeholder tokens, and with model.placeholders.count: 0"
            " there are none; leave control out"
        )
    made: Document = {key: value for key, value in document.items() if key != "control"}
    made["model"] = {**document["model"], "placeholders": dict(document["model"]["placeholders"])}
    made["training"] = dict(document["training"])
    _CONTROLS[name](made, macs)
    made["name"] = f"{document['name']}-{name}"[:100]
    made["description"] = f"Control of {document['name']}: {DESCRIPTIONS[name]}"[:500]
    return made


def _without_tokens(document: Document) -> None:
    placeholders = dict.fromkeys(KEYS)  # substitution and unlabelled samples do without tokens
    document["training"]["placeholders"] = {**document["training"]["placeholders"], **placeholders}


def _plain(document: Document, _: Any = None) -> None:
    document["model"]["placeholders"] = {"count": 0}
    _without_tokens(document)


def _frozen_random(document: Document, _: Any) -> None:
    if (document["training"]["placeholders"]["distilled"] or {}).get("teacher") is not None:
        raise HarnessError(
            "control: frozen_random: keeps a random start, but training.placeholders.distilled.teacher gives the tokens"
            " a start of its own; take the control of the submission without it"
        )
    document["model"]["placeholders"]["frozen"] = True


def _equal_parameters(document: Document, _: Any) -> None:
    """Adapters have the parameters of exchange sites, and stand where those do."""
    tokens = document["model"]["placeholders"]
    if (tokens["mechanism"], tokens["placement"]) != ("exchange", "hidden"):
        raise HarnessError(
            "control: equal_parameters: an adapter has the parameters of an exchange site, and there is none with"
            f" mechanism: {tokens['mechanism']} and placement: {tokens['placement']}; take another control"
        )
    for key in ("read", "write"):
        if not tokens[key]:
            raise HarnessError(
                f"control: equal_parameters: an adapter has the parameters of a whole exchange site, and with {key}:"
                " false half of them are not there; take the control of the submission that reads and writes"
            )
    sizes = {key: document["model"]["placeholders"][key] for key in _SIZES}
    document["model"]["placeholders"] = {**sizes, "adapter": True}
    _without_tokens(document)


def _equal_compute(document: Document, macs: Callable[[Mapping[str, Any]], int]) -> None:
    """As many more steps of the plain network as the tokens cost."""
    wanted = document["training"]["placeholders"]
    uncounted = {
        "auxiliary.target: rotation": (wanted["auxiliary"] or {}).get("target") == "rotation",
        "distilled.teacher": (wanted["distilled"] or {}).get("teacher") is not None,
        "self_supervised": wanted["self_supervised"] is not None,
    }
    for key, on in uncounted.items():
        if on:
            raise HarnessError(
                f"control: equal_compute: training.placeholders.{key} has computation of its own, which the count"
                " of multiply-adds leaves out; take the control of the submission without it"
            )
    cost = macs(document)
    _plain(document)
    document["training"]["steps"] = round(document["training"]["steps"] * cost / macs(document))


def _shuffled_labels(document: Document, _: Any) -> None:
    if len(document["tasks"]) == 1:
        raise HarnessError("control: shuffled_labels: shuffles the labels of all tasks but the first, and there is one")
    first, *others = document["tasks"]
    document["tasks"] = [first, *({**task, "shuffle_labels": True} for task in others)]


def _per_task_banks(document: Document, _: Any) -> None:
    if len(document["tasks"]) == 1:
        raise HarnessError("control: per_task_banks: takes away that tasks share tokens, and there is one task")
    document["model"]["placeholders"]["sharing"] = "per_task"


def _switch(**changes: Any) -> Callable[[Document, Any], None]:
    def apply(document: Document, _: Any) -> None:
        document["model"]["placeholders"] |= changes

    return apply


_CONTROLS: dict[str, Callable[[Document, Any], None]] = {
    "plain": _plain,
    "frozen_random": _frozen_random,
    "read_off": _switch(read=False),
    "write_off": _switch(write=False),
    "equal_parameters": _equal_parameters,
    "equal_compute": _equal_compute,
    "per_task_banks": _per_task_banks,
    "masked": _switch(masked=True),
    "shuffled_labels": _shuffled_labels,
    "output_placement": _switch(placement="output", mechanism="exchange"),
}

DESCRIPTIONS: dict[str, str] = {
    "plain": "the same network, recipe and data order without tokens.",
    "frozen_random": "tokens keep their random start: is it learning them that helps?",
    "read_off": "tokens do not read features, so they are the same for every image: is it the exchange?",
    "write_off": "features do not read tokens: what they hold acts through objectives of their own only; a test of the"
    " harness.",
    "equal_parameters": "adapters with as many parameters at the same places, no tokens: is it the parameters?",
    "equal_compute": "no tokens, and as many more steps as they would have cost: is it the computation?",
    "per_task_banks": "every task has its own share of the tokens: is it the sharing?",
    "masked": "the inserted tokens are there, but nothing attends to them: is it the place in the sequence?",
    "shuffled_labels": "all tasks but the first have labels of other images: is it what the tasks teach each other?",
    "output_placement": "tokens are added to the logits, a second bias: nothing should come of it.",
}
assert set(DESCRIPTIONS) == set(_CONTROLS) == set(get_args(Control))  # one list, three times
