"""How much each task uses each expert, as points of a run's journal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.models.network import MultiTaskNetwork
from harness.training.engine import Engine


def reach(network: MultiTaskNetwork, share: float) -> None:
    """Tell a sharing architecture that changes in the course of training how far that is.

    Args:
        network: The network; most have no such architecture.
        share: Of the training that is done, 0 before the first step.
    """
    opening = getattr(network.shared, "reach", None)
    if opening is not None:
        opening(share)


class GateCurves:
    """Watches the gates of a sharing architecture in steps that end at a point of the curves.

    Nothing is computed that a step does not compute anyway, and no result depends on it. Points go into the journal and
    its pictures only. A compiled network is left alone: watched and unwatched, it would be two programs with other last
    digits.

    Args:
        network: Whose gates; without any there are no points.
        engine: The processes.
        compiled: Whether the network is compiled.
    """

    def __init__(self, network: MultiTaskNetwork, engine: Engine, compiled: bool) -> None:
        self._engine = engine
        watched = None if compiled else network.shared
        self._sharing = watched if hasattr(watched, "watch_gates") else None
        self._point: dict[str, float] = {}

    @contextmanager
    def watching(self, wanted: bool) -> Iterator[None]:
        """Watch the forward passes of a step. All processes.

        Args:
            wanted: Whether the step ends at a point of the curves.
        """
        if not wanted or self._sharing is None:
            yield
            return
        self._sharing.watch_gates(True)
        try:
            yield
            sums: dict[str, tuple[float, int]] = self._sharing.gate_loads()
        finally:
            self._sharing.watch_gates(False)
        names = sorted(sums)
        rows = self._engine.exchange([value for name in names for value in sums[name]])
        totals = [sum(column) for column in zip(*rows, strict=True)]
        self._point = {f"gate/{name}": totals[2 * n] / totals[2 * n + 1] for n, name in enumerate(names)}

    def take(self) -> dict[str, float]:
        """The mean weight over the images of the last watched step by ``gate/<task>/<level>/<expert>``, once."""
        point, self._point = self._point, {}
        return point
