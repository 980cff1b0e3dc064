"""Placeholder tokens: one parameter that every task and modality meets at sites all over the network.

Importing this package imports no torch: its configuration is read before anything else is.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.models.placeholders.adapter import Adapter as Adapter
    from harness.models.placeholders.bank import PlaceholderBank as PlaceholderBank
    from harness.models.placeholders.config import PlaceholderConfig as PlaceholderConfig
    from harness.models.placeholders.dynamic import DynamicStart as DynamicStart
    from harness.models.placeholders.module import Placeholders as Placeholders
    from harness.models.placeholders.sites import ExchangeSite as ExchangeSite
    from harness.models.placeholders.sites import Insertion as Insertion
    from harness.models.placeholders.sites import LogitShift as LogitShift
    from harness.models.placeholders.sites import SecondOrder as SecondOrder
    from harness.models.placeholders.stream import Edit as Edit
    from harness.models.placeholders.stream import Seen as Seen
    from harness.models.placeholders.stream import TokenStream as TokenStream
    from harness.models.placeholders.stream import output_site as output_site

_HOMES = {
    "Adapter": "adapter",
    "DynamicStart": "dynamic",
    "Edit": "stream",
    "ExchangeSite": "sites",
    "Insertion": "sites",
    "LogitShift": "sites",
    "PlaceholderBank": "bank",
    "PlaceholderConfig": "config",
    "Placeholders": "module",
    "SecondOrder": "sites",
    "Seen": "stream",
    "TokenStream": "stream",
    "output_site": "stream",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
