"""Build hook: puts the page's script libraries into the package, so that a wheel needs no network to show a board."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class VendorHook(BuildHookInterface):
    """Runs ``harness/board/vendoring.py`` before a wheel or an editable install is made."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fetch what is missing.

        A registry that cannot be reached stops no installation: the page then shows its tables without plots and
        without sorting, and says how to mend that. A file with another hash does stop it.
        """
        path = Path(self.root) / "harness" / "board" / "vendoring.py"
        specification = importlib.util.spec_from_file_location("vendoring", path)
        assert specification is not None
        assert specification.loader is not None
        vendoring = importlib.util.module_from_spec(specification)
        sys.modules[specification.name] = vendoring  # its dataclasses look themselves up there
        specification.loader.exec_module(vendoring)
        try:
            vendoring.vendor(path.parent / "vendor")
        except OSError as error:
            later = "python -m harness.board.vendoring"
            self.app.display_warning(f"the board's page will have no plots: {error}; to mend it: {later}")
