"""What the classes of a data set are called in a sentence, for heads that read their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from harness.cards import DatasetCard


def class_names(card: DatasetCard, classes: Sequence[str]) -> tuple[str, ...]:
    """A class's display name, or where the card has none its own name with spaces for underscores.

    Args:
        card: With ``display_names`` or without.
        classes: Names in the data: of folders, of categories.
    """
    known = _imagenet() if card.display_names == "imagenet" else card.display_names
    return tuple(known.get(name, name.replace("_", " ").strip()) for name in classes)


@cache
def _imagenet() -> Mapping[str, str]:
    """CLIP's names of ImageNet's classes (Radford 2021), by wnid; timm tells the wnids in the same order."""
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
    from timm.data.imagenet_info import ImageNetInfo

    return dict(zip(ImageNetInfo().label_names(), IMAGENET_CLASSNAMES, strict=True))
