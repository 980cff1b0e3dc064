"""Checks of segmentation layouts: Cityscapes' two trees, and folders of images and label maps with the same names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.cards import DatasetCard
from harness.data.checking.findings import Findings
from harness.data.checking.image_files import ImageFiles
from harness.data.checking.plans import SplitPlan, existing, listed_names
from harness.data.images import walk_images

_IMAGE_ENDINGS = ("_leftImg8bit.png", "_leftImg8bit.jpg")
_LABEL_ENDINGS = ("_gtFine_labelIds.png",)


def plan_cityscapes(card: DatasetCard, split: str, found: Findings) -> SplitPlan:
    """Images and label maps joined by the frame's name, in whatever folders they lie."""
    return _plan(card, split, found, _IMAGE_ENDINGS, _LABEL_ENDINGS, lambda name: name.rpartition("/")[2], None)


def plan_label_maps(card: DatasetCard, split: str, found: Findings) -> SplitPlan:
    """Images and label maps joined by their path without ending; ``names`` lists them where splits share folders."""
    entry = card.splits[split]  # type: ignore[index]
    listed = None
    if entry.names is not None:
        path = existing(card, split, "names", found)
        listed = [] if path is None else [words[0] for words in listed_names(path, split, found)]
    return _plan(card, split, found, (entry.image_suffix,), (entry.label_suffix,), lambda name: name, listed)


def _plan(
    card: DatasetCard,
    split: str,
    found: Findings,
    image_endings: tuple[str, ...],
    label_endings: tuple[str, ...],
    key: Callable[[str], str],
    listed: list[str] | None,
) -> SplitPlan:
    """Join two trees.

    Args:
        card: The data set.
        split: Name of the split.
        found: Where findings go.
        image_endings: Endings of image files.
        label_endings: Endings of label maps.
        key: What of a path (without its ending) joins an image and its label map.
        listed: The ids of the split's images, or None where all files are the split's.
    """
    images = ImageFiles(card, split, found)
    plan = SplitPlan(images, labels=[])
    labels = existing(card, split, "labels", found)
    if not images.there:
        return plan
    image_of, plan.unlisted = _tree(sorted(images.files), images.path, image_endings, key, split, found)
    label_of = (
        {} if labels is None else _tree(walk_images(labels), labels.joinpath, label_endings, key, split, found)[0]
    )
    if listed is not None or images.folder == labels:
        plan.unlisted = set()  # the folders are shared with other splits, or with the label maps
    ids = sorted(image_of) if listed is None else listed
    for item in ids:
        if item not in image_of:
            message = "listed and does not exist; complete the data set"
            found.add("image-missing", split, images.path(item + image_endings[0]), item, message)
            continue
        if item in label_of and labels is not None:
            mask = labels / label_of[item]
        elif card.missing_labels == "leave_out":
            message = "has no label map and is left out, as the card's missing_labels says"
            found.add("left-out", split, images.path(image_of[item]), item, message)
            continue
        else:
            mask = None
            if labels is not None:
                message = f"has no label map below {card.splits[split].labels}; complete the data set"  # type: ignore[index]
                found.add("annotation-missing", split, images.path(image_of[item]), item, message)
        plan.names.append(image_of[item])
        plan.ids.append(item)
        assert plan.labels is not None
        plan.labels.append(mask)
    if listed is None and labels is not None:
        for item in sorted(label_of.keys() - image_of.keys()):
            message = "no image belongs to this label map; fetch the image or remove the label map"
            found.add("annotation-orphaned", split, labels / label_of[item], item, message)
    plan.size = len(plan.names)
    plan.counts = {"images": len(plan.names), "label maps": sum(mask is not None for mask in plan.labels or ())}
    return plan


def _tree(
    names: list[str],
    place: Callable[[str], Path],
    endings: tuple[str, ...],
    key: Callable[[str], str],
    split: str,
    found: Findings,
) -> tuple[dict[str, str], set[str]]:
    """Files with one of the endings by id, and the other images of the tree."""
    files: dict[str, str] = {}
    others: set[str] = set()
    for name in names:
        ending = next((e for e in endings if name.endswith(e)), None)
        if ending is None:
            others.add(name)
            continue
        item = key(name.removesuffix(ending))
        if item in files:
            message = f"{files[item]} has the same id; names must be unique, remove one"
            found.add("duplicate-id", split, place(name), item, message)
        else:
            files[item] = name
    return files, others
