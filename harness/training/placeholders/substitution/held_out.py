"""Training images that are not trained on, by a hash of their ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.data.loading import Place, TaskData
from harness.data.transforms import derive_seed
from harness.errors import HarnessError


def held_out(data: TaskData, share: float) -> list[int]:
    """Places of the images that are not trained on, ascending.

    Whether an image is one of them follows from its id alone; where none is, the one of the smallest hash is taken, and
    where all are, that of the largest is left. Tasks that take another's images hold out the same.

    Args:
        data: A training split.
        share: Of its images.

    Raises:
        HarnessError: There is one image only.
    """
    hashes = [derive_seed("held out", name) for name in data.shared_names]
    if len(hashes) < 2:
        raise HarnessError(
            f"training.placeholders.substitution: adaptive holds out training images, and {data.config.dataset} has"
            f" {len(hashes)}; take more, or another strategy"
        )
    found = [place for place, one in enumerate(hashes) if one < share * 2**63 and one < max(hashes)]
    return found or [hashes.index(min(hashes))]


class WithoutHeldOut:
    """Batches in which another image stands for each that is held out: the next one that is not.

    All other images come when they would come without; so the order is that of a run that holds out none.

    Args:
        order: Batches of places.
        places: Those held out.
        count: Of all images.
    """

    def __init__(self, order: Iterable[list[Place]], places: Iterable[int], count: int) -> None:
        self._order = order
        held = set(places)
        following = {}
        for place in held:
            instead = place
            while instead in held:
                instead = (instead + 1) % count
            following[place] = instead
        self._following = following

    def __iter__(self) -> Iterator[list[Place]]:
        for batch in self._order:
            yield [(epoch, self._following.get(place, place)) for epoch, place in batch]
