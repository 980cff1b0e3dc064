"""What can be named in a submission."""

from __future__ import annotations

from collections.abc import Callable

from harness.cards import card_paths, load_card
from harness.errors import HarnessError, suggestion

Row = dict[str, str]


def list_rows(kind: str) -> list[Row]:
    """Rows of a listing, each with at least ``name``.

    Args:
        kind: datasets, adapters, backbones, sharing, balancing, regimes, heads or placeholders.

    Raises:
        HarnessError: There is no such listing.
    """
    if kind not in _KINDS:
        raise HarnessError(f"ls: {kind!r} is not a listing{suggestion(kind, _KINDS)}")
    return _KINDS[kind]()


def _datasets() -> list[Row]:
    rows = []
    for name in sorted(card_paths()):
        try:
            card = load_card(name)
        except HarnessError as error:  # a broken card of the user's must not hide the others
            rows.append({"name": name, "task": "", "present": "", "evaluated on": "", "about": str(error)})
            continue
        rows.append(
            {
                "name": name,
                "task": card.task,
                "present": _present(name),
                "evaluated on": card.evaluation_split,
                "about": card.title,
            }
        )
    return rows


def _present(name: str) -> str:
    try:
        return "yes" if load_card(name).directory.is_dir() else "no"
    except HarnessError:
        return "no"


def _adapters() -> list[Row]:
    from harness.data import ADAPTERS, KEYS
    from harness.registry import look_up

    return [
        {"name": row["name"], "task": look_up(ADAPTERS, row["name"], "adapter").task}
        | {"keys": f"images {KEYS[row['name']]}", "about": row["about"]}
        for row in _registered(ADAPTERS)
    ]


def _backbones() -> list[Row]:
    import timm

    # Pretrained tags are listed by timm itself; every name here can be built without a network.
    with_weights = set(timm.list_models(pretrained=True))
    tagged = {name.split(".")[0] for name in with_weights}
    return [
        {"name": name, "library": "timm", "pretrained": "yes" if name in tagged else "no"}
        for name in timm.list_models()
    ]


def _registered(registry: dict[str, str]) -> list[Row]:
    from harness.registry import look_up

    return [
        {"name": name, "about": (look_up(registry, name, "entry").__doc__ or "").strip().split("\n")[0]}
        for name in registry
    ]


def _sharing() -> list[Row]:
    from harness.models.sharing import SHARING

    return _registered(SHARING)


def _balancing() -> list[Row]:
    from harness.training.balancing import BALANCING

    return _registered(BALANCING)


def _regimes() -> list[Row]:
    from harness.training.regimes import REGIMES

    return _registered(REGIMES)


def _heads() -> list[Row]:
    from harness.models.heads import HEADS

    return _registered(HEADS)


def _placeholders() -> list[Row]:
    from harness.models.config import PlaceholderConfig

    return [{"name": name, "default": str(field.default)} for name, field in PlaceholderConfig.model_fields.items()]


_KINDS: dict[str, Callable[[], list[Row]]] = {
    "datasets": _datasets,
    "adapters": _adapters,
    "backbones": _backbones,
    "sharing": _sharing,
    "balancing": _balancing,
    "regimes": _regimes,
    "heads": _heads,
    "placeholders": _placeholders,
}
