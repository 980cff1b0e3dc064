"""How much each expert is used: the weights that gates give, summed over images while somebody watches."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from torch import Tensor

from harness.models.sharing.experts import Gate


class Place(NamedTuple):
    """A gate of a mixture.

    Attributes:
        owner: The task that it serves; empty where it is one for all tasks, and ``shared`` between levels of a PLE.
        level: From 1 on, in stacked mixtures.
        experts: What the E experts that it weighs are called.
        gate: The gate.
    """

    owner: str
    level: int
    experts: tuple[str, ...]
    gate: Gate


SHARED_GATE = "shared"  # owner of the gate between two levels of a PLE


class GateLoads:
    """Sums of gate weights since it was made.

    Attributes:
        sums: Sum of the weights and number of images, by ``<task>/<level>/<expert>``.
    """

    def __init__(self) -> None:
        self.sums: dict[str, tuple[float, int]] = {}

    def add(self, map_: str, places: Iterable[Place], tasks: Collection[str]) -> None:
        """Take up what gates gave in the mixture's last call.

        A level of a PLE weighs every image with the gates of all tasks; those of other tasks do not count.

        Args:
            map_: Name of the map that is mixed.
            places: The mixture's gates.
            tasks: Whose images they were.
        """
        places = list(places)
        stacked = max(place.level for place in places) > 1
        for place in places:
            weights: Tensor | None = place.gate.kept
            if weights is None or not (place.owner in tasks or place.owner in ("", SHARED_GATE)):
                continue
            sums = weights.double().sum(0).tolist()
            level = f"{map_}.{place.level}" if stacked else map_
            for owner in tasks if not place.owner else [place.owner]:
                for expert, value in zip(place.experts, sums, strict=True):
                    key = f"{owner}/{level}/{expert}"
                    before, images = self.sums.get(key, (0.0, 0))
                    self.sums[key] = before + value, images + len(weights)


def numbered(count: int, prefix: str = "") -> tuple[str, ...]:
    """Names of experts: ``1``, ``2``, …, or ``<prefix>-1`` and so on."""
    return tuple(f"{prefix}-{number}" if prefix else str(number) for number in range(1, count + 1))
