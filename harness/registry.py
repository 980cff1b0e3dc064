"""Lazy look-up of ``module:Class`` entries, so that naming a method does not import every other one."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from harness.errors import HarnessError, suggestion


def look_up(registry: Mapping[str, str], name: str, what: str, listing: str = "") -> Any:
    """Import and return the object registered under `name`.

    Args:
        registry: ``module:attribute`` by name.
        name: The name.
        what: What is looked up, for the error, e.g. ``"sharing architecture"``.
        listing: Command that lists the names.

    Raises:
        HarnessError: `name` is not registered.
    """
    if name not in registry:
        raise HarnessError(f"{name!r} is not a {what}{suggestion(name, registry, listing)}")
    module, _, attribute = registry[name].partition(":")
    return getattr(import_module(module), attribute)
