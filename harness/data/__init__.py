"""Data sets: from a card and files in an official layout to typed samples."""

from __future__ import annotations

from typing import cast

from harness.cards import DatasetCard
from harness.data.samples import Adapter
from harness.errors import HarnessError, suggestion
from harness.registry import look_up

ADAPTERS = {
    "imagefolder": "harness.data.classification:ImageFolder",
    "imagenet_devkit": "harness.data.imagenet_devkit:ImageNetDevkit",
    "cifar": "harness.data.cifar:Cifar",
    "pets": "harness.data.pets:OxfordPets",
    "coco": "harness.data.detection:CocoDetection",
    "voc": "harness.data.voc:PascalVoc",
    "cityscapes": "harness.data.segmentation:Cityscapes",
    "label_maps": "harness.data.label_map_folders:LabelMapFolders",
    "vqa": "harness.data.vqa:VqaV2",
}

# Keys of a split that an adapter reads besides `images` and `size`; what is in parentheses may be left out.
KEYS = {
    "imagefolder": "(real)",
    "imagenet_devkit": "(labels synsets real)",
    "cifar": "labels",
    "pets": "names (image_suffix)",
    "coco": "annotations",
    "voc": "annotations names (image_suffix)",
    "cityscapes": "labels",
    "label_maps": "labels (names image_suffix label_suffix)",
    "vqa": "questions annotations (image_prefix image_suffix)",
}


def open_split(card: DatasetCard, split: str, limit: int | None = None) -> Adapter:
    """Open one split of a data set.

    Args:
        card: The data set.
        split: ``train``, ``val`` or ``test``, as far as the card has it.
        limit: Use only the first `limit` images in canonical order.

    Returns:
        The card's adapter.

    Raises:
        HarnessError: The card has no such split, or a file is missing or not valid.
    """
    if split not in card.splits:
        raise HarnessError(f"card {card.name}: splits: there is no split {split!r}{suggestion(split, card.splits)}")
    if limit is not None and limit < 1:
        raise HarnessError(f"card {card.name}: limit: {limit} is not usable; give at least 1 image")
    return cast(Adapter, look_up(ADAPTERS, card.adapter, "data adapter")(card, split, limit))
