"""Placeholder Harness: a cross-modal multi-task benchmark harness.

The verbs of the command line as functions; importing this package imports neither torch nor anything else that is
heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.api import add_bundle as add_bundle
    from harness.api import analyze as analyze
    from harness.api import bundle as bundle
    from harness.api import compare as compare
    from harness.api import leaderboard as leaderboard
    from harness.api import rerun as rerun
    from harness.api import score as score
    from harness.api import submit as submit
    from harness.errors import HarnessError as HarnessError

__all__ = ["HarnessError", "add_bundle", "analyze", "bundle", "compare", "leaderboard", "rerun", "score", "submit"]


def __getattr__(name: str) -> Any:
    if name == "HarnessError":
        from harness.errors import HarnessError

        return HarnessError
    if name in __all__:
        from harness import api

        return getattr(api, name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
