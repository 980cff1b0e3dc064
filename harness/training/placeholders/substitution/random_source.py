"""Strategy `random`."""

from __future__ import annotations

from collections.abc import Sequence

from harness.training.placeholders.substitution.base import Strategy


class RandomSource(Strategy):
    """Any other task, for each batch and task."""

    def sources(self, step: int, target: str) -> Sequence[str]:
        """One of the target's sources, uniformly."""
        among = self.setting.pairs[target]
        return (among[int(self.draw(step, target).integers(len(among)))],)
