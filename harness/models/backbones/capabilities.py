"""What every model of every library can do here, found out by trying and remembered in the cache folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson

from harness.atomic import write_json
from harness.cards import cache_directory
from harness.models.backbones import BACKBONES
from harness.models.backbones.structure import Library, inspect
from harness.models.config import BackboneConfig
from harness.registry import look_up

UNCHECKED = "?"
_PACKAGES = {"timm": "timm", "torchvision": "torchvision", "open_clip": "open-clip-torch"}
_COLUMNS = ("kind", "strides", "exchange", "prefix")
_KEEP_EVERY = 50

Row = dict[str, str]


class Capabilities:
    """The checked models of one library, with one file in the cache folder per version of library, torch and harness.

    Args:
        library: ``timm``, ``torchvision`` or ``open_clip``.

    Raises:
        HarnessError: There is no such library.
    """

    def __init__(self, library: str) -> None:
        self._library: Library = look_up(BACKBONES, library, "backbone library", "harness ls backbones").library
        versions = [metadata.version(package) for package in (_PACKAGES[library], "torch")]
        self._file = cache_directory() / "backbones" / f"{'-'.join([library, *versions, _code()])}.json"
        self._found = self._read()

    def names(self) -> list[str]:
        """Every model, sorted."""
        return sorted(self._library.names())

    def unchecked(self, names: Iterable[str]) -> list[str]:
        """Those of the names that nothing is known of yet."""
        return [name for name in names if name not in self._found]

    def check(self, names: Sequence[str], advance: Callable[[str], Any] = lambda name: None) -> None:
        """Find out what models can do, a tenth of a second to a second each, and remember it.

        Args:
            names: Which models.
            advance: Called with each name when it is done.
        """
        for index, name in enumerate(names, 1):
            self._found[name] = _check(self._library, name)
            advance(name)
            if index % _KEEP_EVERY == 0 or index == len(names):
                write_json(self._file, self._read() | self._found)

    def rows(self, names: Iterable[str]) -> list[Row]:
        """One row per name: library, pretrained weights or not, kind, strides, and which placeholders it takes."""
        tagged = self._library.tagged()
        rows = []
        for name in names:
            row = {"name": name, "library": self._library.name, "pretrained": "yes" if name in tagged else "no"}
            found = self._found.get(name, {})
            rows.append(row | {column: found.get(column, UNCHECKED) for column in _COLUMNS})
        return rows

    def _read(self) -> dict[str, Row]:
        try:
            return dict(orjson.loads(self._file.read_bytes()))
        except (OSError, ValueError, TypeError):
            return {}


def _check(library: Library, name: str) -> Row:
    try:
        structure = inspect(library, BackboneConfig.model_validate({"library": library.name, "name": name}))
    except Exception:  # a model that fails in whatever way is no backbone
        return {"kind": "none", "strides": "", "exchange": "no", "prefix": "no"}
    strides = [stage.stride for stage in structure.stages]
    return {
        "kind": structure.kind,
        "strides": f"{min(strides)}-{max(strides)}" if len(set(strides)) > 1 else str(strides[0]),
        "exchange": "yes",
        "prefix": "yes" if structure.takes_prefix else "no",
    }


def _code() -> str:
    """Eight hex digits of the code that looks: other code may find other things."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]
