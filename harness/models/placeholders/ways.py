"""Where a site lies on a sample's way through the network: its depth, and its modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from harness.errors import HarnessError

Modality = Literal["image", "text", "fusion"]


def key_of(site: str) -> str:
    """What a site is called among modules: its name holds dots, which theirs must not."""
    return site.replace(".", "/")


def modality_of(site: str) -> Modality:
    """What the features at a site are of: a backbone's of the image, a text encoder's of the text, others of both.

    Args:
        site: Its name; before a slash stands whose trunk it belongs to, where tasks have trunks of their own.
    """
    own = site.rpartition("/")[2]
    if own.startswith("backbone."):
        return "image"
    return "text" if own == "text" or own.startswith("text.") else "fusion"


def levels_of(ways: Mapping[str, Sequence[str]], levels: int) -> dict[str, int]:
    """The level of each site: S·l/L rounded down, for site number l (from 0) on a sample's way, of L on the longest.

    A site that samples of several tasks come to has one number, the greatest that it has on any of their ways.

    Args:
        ways: For each task the sites that its samples come to, in order.
        levels: S.

    Raises:
        HarnessError: There are fewer sites than levels, so that some tokens would never be used.
    """
    numbers: dict[str, int] = {}
    for sites in ways.values():
        for number, site in enumerate(sites):
            numbers[site] = max(number, numbers.get(site, 0))
    longest = max((len(sites) for sites in ways.values()), default=0)
    if longest < levels:
        raise HarnessError(
            f"model.placeholders.levels: {levels} levels need as many sites on a sample's way, and here there are"
            f" {longest} at most; lower it, or raise model.placeholders.stages"
        )
    return {site: levels * number // longest for site, number in numbers.items()}
