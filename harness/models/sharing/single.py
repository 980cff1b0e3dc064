"""Single-task learning: the yardstick of every sharing architecture."""

from __future__ import annotations

from harness.models.sharing.columns import ColumnSharing


class SingleSharing(ColumnSharing):
    """A trunk per task and nothing shared, but placeholder tokens where there are any."""
