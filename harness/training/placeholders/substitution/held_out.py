"""Training images that are not trained on, by a hash of their ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.data.loading import Place, TaskData
from harness.data.transforms import derive_seed
from harness.errors import HarnessError


def held_out(data: TaskData, share: float) -> list[int]:
    """Places of the images that are not trained on, ascending.

    It follows from ids alone; tasks that take another's images hold out the same.

    Args:
        data: A training split.
        share: Of its images.

    Raises:
        HarnessError: That is none of them, or all.
    """
    found = [place for place, name in enumerate(data.shared_names) if derive_seed("held out", name) < share * 2**63]
    if not 0 < len(found) < len(data):
        raise HarnessError(
            f"training.placeholders.substitution.held_out: a share of {share:g} of the {len(data)} training images of"
            f" {data.config.dataset} came to {len(found)} by the hash of their ids; some must be held out and some left"
        )
    return found


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
