"""What can be named in a submission."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from harness.cards import card_paths, load_card
from harness.errors import HarnessError, suggestion
from harness.progress import Reporter

_CHECKED_UNASKED = 64

Row = dict[str, str]


def list_rows(
    kind: str,
    name_filter: str = "",
    library: str | None = None,
    check: bool = False,
    reporter: Reporter | None = None,
) -> list[Row]:
    """Rows of a listing, each with at least ``name``.

    Args:
        kind: datasets, adapters, backbones, sharing, balancing, regimes, heads, placeholders or controls.
        name_filter: Only names that contain this text.
        library: backbones: of this library only.
        check: backbones: find out what each model can do, however many there are. Without it up to 64 new ones are
            tried, and of the others what is not remembered is left open.
        reporter: backbones: shows progress.

    Raises:
        HarnessError: There is no such listing, or no such library.
    """
    if kind == "backbones":
        return _backbones(name_filter, library, check, reporter or Reporter(quiet=True))
    if kind not in _KINDS:
        raise HarnessError(f"ls: {kind!r} is not a listing{suggestion(kind, [*_KINDS, 'backbones'])}")
    if library is not None or check:
        raise HarnessError(f"ls {kind}: --library and --check speak of backbones only; leave them out")
    return [row for row in _KINDS[kind]() if name_filter in row["name"]]


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


def _backbones(name_filter: str, library: str | None, check: bool, reporter: Reporter) -> list[Row]:
    from harness.models.backbones import BACKBONES
    from harness.models.backbones.capabilities import Capabilities

    rows, left = [], 0
    for one in [library] if library is not None else BACKBONES:
        known = Capabilities(one)
        names = [name for name in known.names() if name_filter in name]
        new = known.unchecked(names)
        if check or len(new) <= _CHECKED_UNASKED:
            with reporter.bar(f"checking {one}", len(new)) as bar:
                known.check(new, lambda name: bar.advance(detail=name))
        else:
            left += len(new)
        rows += known.rows(names)
    if left:
        reporter.say(f"{left} models are not checked yet: narrow the list with --filter, or add --check (minutes)")
    return rows


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
    from harness.models.placeholders.config import PlaceholderConfig, about
    from harness.training.placeholders.config import PlaceholderTrainingConfig
    from harness.training.placeholders.substitution import STRATEGIES

    lines = about()
    rows = [
        {"name": name, "values": _values(field.annotation), "default": _written(field.default), "about": lines[name]}
        for name, field in PlaceholderConfig.model_fields.items()
    ]
    beside = [
        {"name": f"training.placeholders.{name}", "values": "a section", "default": "off", "about": line}
        for name, line in about(PlaceholderTrainingConfig).items()
    ]
    strategies = [
        {"name": f"substitution {row['name']}", "values": "", "default": "off", "about": row["about"]}
        for row in _registered(STRATEGIES)
    ]
    return rows + beside + strategies


def _values(annotation: Any) -> str:
    """What a key takes: its choices, or a number."""
    if annotation is bool:
        return "true, false"
    return ", ".join(map(str, get_args(annotation))) or "a number"


def _written(value: Any) -> str:
    """As one writes it in YAML."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _controls() -> list[Row]:
    from harness.controls import DESCRIPTIONS

    return [{"name": name, "about": about} for name, about in DESCRIPTIONS.items()]


_KINDS: dict[str, Callable[[], list[Row]]] = {
    "datasets": _datasets,
    "adapters": _adapters,
    "sharing": _sharing,
    "balancing": _balancing,
    "regimes": _regimes,
    "heads": _heads,
    "placeholders": _placeholders,
    "controls": _controls,
}
