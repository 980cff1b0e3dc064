"""One entry in full, as the page shows it: whatever its records hold, known to this code or not.

What has a form of its own on the page (metrics, curves, the submission) is given as such. All other fields of a record
become outlines of labels and texts, so that a field which records gain is shown without a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import yaml

from harness.board.curves import group, place
from harness.board.gallery import SUFFIX, read_gallery
from harness.board.matrices import drawn, sentences
from harness.board.records import Record
from harness.board.text import duration, percent, quantity
from harness.errors import HarnessError

MAX_CURVES = 60  # learning curves per entry
MAX_POINTS = 100  # per curve and seed
MAX_CLASSES = 400  # classes per entry and task
MAX_ROWS = 300  # of an outline

Row = tuple[str, str, int]  # label, text, and how deep it is nested

# What the page shows in a form of its own, or what is in every record's name.
_SHOWN = {
    "schema_version", "name", "fingerprint", "seed", "submission", "tasks", "curves", "warnings", "cost", "provenance",
    "trust", "rankable", "unrankable_because", "relatedness", "subsets",
}  # fmt: skip
_SHOWN_OF_TASK = {
    *("task", "protocol", "main", "metrics", "per_class", "images", "statistics"),
    *("robustness", "train_gap"),  # as the board's document has them, over all seeds
}
_UNITS: dict[str, Callable[[float], str]] = {  # by a word of a number's name, or of what it lies in
    "seconds": duration,
    "bytes": lambda n: quantity(n, "B"),
    "joules": lambda n: quantity(n, "J"),
    "parameters": quantity,
    "macs": quantity,
}


def details(entry: Mapping[str, Any], records: Sequence[Record], board: Path) -> dict[str, Any]:
    """Everything about one entry.

    Args:
        entry: From the board's document.
        records: Its records, one per seed.
        board: The board's folder, where pictures lie.

    Returns:
        Plain JSON values.
    """
    first = records[0]
    # Without what is as in a record that says nothing of it: a new field changes no page until a record has it.
    dumps = [record.model_dump(mode="json", exclude_defaults=True) for record in records]
    seeds = ",".join(str(seed) for seed in entry["seeds"])
    return {
        "seeds": entry["seeds"],
        "records": [f"records/{record.id}" for record in records],
        "problems": entry["not_ranked_because"],
        "warnings": entry["warnings"],
        "baselines": {"found": entry["baselines"], "missing": entry["baselines_missing"]},
        "tasks": [_task(card, task, dumps) for card, task in entry["tasks"].items()],
        "between": {"matrices": drawn(entry), "sentences": sentences(entry)},
        "curves": _curves(records),
        "cost": outline([dump.get("cost", {}) for dump in dumps]),
        "config": _yaml(first.submission) if first.submission is not None else "",
        "settings": _settings(first.submission or {}),
        "rerun": f"harness submit {first.name}.yaml --seeds {seeds}" if first.submission is not None else "",
        "provenance": outline(_without([dump["provenance"] for dump in dumps], ("packages",)))
        + _packages(first.provenance.packages),
        "more": _more(records, dumps),
        "gallery": _gallery(board, records),
    }


def outline(
    values: Sequence[Mapping[str, Any]], depth: int = 0, write: Callable[[float], str] | None = None
) -> list[Row]:
    """Labels and texts of nested values, one per seed; where seeds differ, all their texts are given.

    Args:
        values: Mappings, one per seed, with whatever in them.
        depth: How deep they are nested already.
        write: How numbers are written whose own names say no unit.
    """
    rows: list[Row] = []
    for key in dict.fromkeys(key for value in values for key in value):
        children = [value.get(key) for value in values]
        nested = [_mapping(child) for child in children]
        unit = next((_UNITS[word] for word in str(key).split("_") if word in _UNITS), write)
        if any(nested):
            rows += [(_words(key), "", depth), *outline([child or {} for child in nested], depth + 1, unit)]
        elif any(child not in (None, "", [], {}) for child in children):
            rows.append((_words(key), _joined(_text(child, unit) for child in children), depth))
    return rows[:MAX_ROWS]


def _mapping(value: Any) -> dict[str, Any] | None:
    if isinstance(value, dict):
        return value
    if isinstance(value, list) and any(isinstance(child, (dict, list)) for child in value):
        return {str(number): child for number, child in enumerate(value, start=1)}
    return None


def _words(key: str) -> str:
    return key.replace("_", " ")


def _text(value: Any, write: Callable[[float], str] | None = None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return write(value) if write else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_text(child, write) for child in value)
    return "" if value is None else str(value)


def _joined(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(text for text in texts if text))


def _without(values: Sequence[dict[str, Any]], keys: Iterable[str]) -> list[dict[str, Any]]:
    left_out = set(keys)
    return [{key: child for key, child in value.items() if key not in left_out} for value in values]


def _task(card: str, task: Mapping[str, Any], dumps: Sequence[dict[str, Any]]) -> dict[str, Any]:
    own = [dump["tasks"][card] for dump in dumps]
    return {
        "card": card,
        "task": task["task"],
        "main": task["main"],
        "images": task["images"],
        "value": task["value"],
        "interval": None if task["low"] is None else [task["low"], task["high"]],
        "seeds": task["seeds"],
        "spread": task["spread"],
        "metrics": sorted(task["metrics"].items()),
        "classes": list(task["per_class"].items())[:MAX_CLASSES],
        "protocol": outline([task["protocol"]]),
        "more": _robustness(task) + outline(_without(own, _SHOWN_OF_TASK)),
    }


def _robustness(task: Mapping[str, Any]) -> list[Row]:
    """What corrupted images and training images said, in percent; reported by the run, not recomputed."""
    rows: list[Row] = []
    drop, gap = task.get("robustness"), task.get("train_gap")
    if drop is not None:
        rows.append(("drop on corrupted images", _interval(drop["drop"], drop), 0))
        severities = "at severity " + ", ".join(map(str, drop["severities"]))
        for kind, values in drop["values"].items():
            rows.append((f"{_words(kind)} {severities}", ", ".join(percent(value) for value in values), 1))
    if gap is not None:
        rows.append((f"on {gap['images']:,} training images", percent(gap["value"]), 0))
        rows.append(("train\u2212test gap", _interval(gap["gap"], gap), 0))
    return rows


def _interval(value: float | None, ends: Mapping[str, Any]) -> str:
    known = ends["low"] is not None and ends["high"] is not None
    return percent(value) + (f" ({percent(ends['low'])} to {percent(ends['high'])})" if known else "")


def _packages(packages: Mapping[str, str]) -> list[Row]:
    text = ", ".join(f"{name} {version}" for name, version in sorted(packages.items()))
    return [("packages", text, 0)] if text else []


def _more(records: Sequence[Record], dumps: Sequence[dict[str, Any]]) -> list[tuple[str, list[Row]]]:
    """The fields that have no form of their own, and what follows from them."""
    computed = [{"backward transfer": record.backward_transfer()} for record in records]
    values = [own | found for own, found in zip(_without(dumps, _SHOWN), computed, strict=True)]
    single = outline([{key: child for key, child in value.items() if not _mapping(child)} for value in values])
    sections = [("Training", single)] if single else []
    for key in dict.fromkeys(key for value in values for key, child in value.items() if _mapping(child)):
        rows = outline([_mapping(value.get(key)) or {} for value in values])
        if rows:
            sections.append((_words(key).capitalize(), rows))
    return sections


def _curves(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Curves by group, e.g. the losses of all tasks; each with its points of every seed."""
    names = sorted({name for record in records for name in record.curves}, key=lambda name: (place(name), name))
    groups: dict[str, list[dict[str, Any]]] = {}
    for name in names[:MAX_CURVES]:
        seeds = [
            {"seed": record.seed, "points": _thin([(step, v) for step, v in record.curves[name] if v is not None])}
            for record in records
            if name in record.curves
        ]
        short = name.partition("/")[2] or _words(name)
        kind = group(name) if "/" in name else name
        groups.setdefault(kind, []).append({"name": short, "seeds": seeds})
    return [{"group": _words(kind), "curves": curves} for kind, curves in groups.items()]


def _thin(curve: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Every n-th point and the last one, to five digits."""
    stride = max(1, -(-len(curve) // MAX_POINTS))
    kept = [*curve[:-1:stride], curve[-1]] if curve else []
    return [(step, float(f"{value:.5g}")) for step, value in kept]


def _settings(value: Any, path: str = "") -> dict[str, str]:
    """A submission as one line per setting, so that two can be held against each other."""
    if isinstance(value, dict) and value:
        parts: Iterable[tuple[str, Any]] = (
            (f"{path}.{key}" if path else str(key), child) for key, child in value.items()
        )
    elif isinstance(value, list) and any(isinstance(child, dict) for child in value):
        parts = (
            (f"{path}[{child.get('dataset', n) if isinstance(child, dict) else n}]", child)
            for n, child in enumerate(value)
        )
    else:
        return {path: value if isinstance(value, str) else orjson.dumps(value).decode()}
    return {name: text for key, child in parts for name, text in _settings(child, key).items()}


def _gallery(board: Path, records: Sequence[Record]) -> dict[str, Any] | None:
    """Of the first seed that has one."""
    for record in records:
        try:
            gallery = read_gallery(board, record)
        except HarnessError:
            return {"problem": "The pictures of this entry are damaged; harness leaderboard --verify tells more."}
        if gallery is not None:
            return {
                "seed": record.seed,
                "sheets": [
                    {"card": card, "file": f"records/{record.id}/{card}{SUFFIX}"}
                    | sheet.model_dump(mode="json", exclude={"sha256"})
                    for card, sheet in gallery.sheets.items()
                ],
            }
    return None


def _yaml(submission: Mapping[str, Any]) -> str:
    return str(yaml.dump(submission, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110))


# The same emitter in C where PyYAML was built with it, as its wheels are: ten times as fast, and the same text for
# every submission (only empty keys are written otherwise, which none has).
_SafeDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_SafeDumper):
    """Without aliases: a submission that says the same thing twice is shown saying it twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
