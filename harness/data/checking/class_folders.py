"""Checks of classification layouts: class folders, ImageNet's development kit, and Oxford-IIIT Pet's lists."""

from __future__ import annotations

from pathlib import Path

from harness.cards import DatasetCard
from harness.data.checking.findings import Findings
from harness.data.checking.image_files import ImageFiles
from harness.data.checking.plans import SplitPlan, existing, listed_names, read_document, read_lines
from harness.errors import HarnessError

_VALIDATION_NAME = "ILSVRC2012_val_{:08d}.JPEG"


def plan_class_folders(card: DatasetCard, split: str, found: Findings) -> SplitPlan:
    """One folder per class; every split has classes of the training split only."""
    images = ImageFiles(card, split, found)
    plan = SplitPlan(images)
    if not images.there:
        return plan
    folders, training = images.top_folders(), _training_classes(card)
    for name in sorted(folders - training if training else ()):
        message = "the training split has no such class folder; remove it or add it there"
        found.add("category-unknown", split, images.folder / name, name, message)
    for name in sorted(images.files):
        parent, slash, _ = name.partition("/")
        if not slash:
            message = "lies in no class folder and is not used; move it or remove it"
            found.add("image-unlisted", split, images.path(name), name, message)
        elif parent in training or not training:
            plan.names.append(name)
            plan.classes[parent] += 1
    plan.ids = plan.names
    plan.size = len(plan.names)
    plan.counts = {"images": len(plan.names), "classes": sum(count > 0 for count in plan.classes.values())}
    _check_real(card, split, plan, found)
    return plan


def plan_devkit(card: DatasetCard, split: str, found: Findings) -> SplitPlan:
    """Class folders; where ``labels`` is given, a flat folder whose n-th image has the n-th class of that file."""
    entry = card.splits[split]  # type: ignore[index]
    if entry.labels is None:
        return plan_class_folders(card, split, found)
    images = ImageFiles(card, split, found)
    plan = SplitPlan(images)
    truth = existing(card, split, "labels", found)
    synsets = existing(card, split, "synsets", found)
    if not images.there or truth is None:
        return plan
    wnids = _leaf_synsets(synsets, split, found) if synsets else {}
    lines = read_lines(truth, split, found)
    training = _training_classes(card)
    for number, line in enumerate(lines, start=1):
        name = _VALIDATION_NAME.format(number)
        if not images.has(name):
            message = f"the image of line {number} of {truth.name} does not exist; unpack the images again"
            found.add("image-missing", split, images.path(name), name, message)
            continue
        plan.names.append(name)
        wnid = wnids.get(int(line)) if line.isascii() and line.isdigit() else None
        if wnids and wnid is None:
            message = f"line {number}: {line[:20]!r} is not the id of a leaf synset; fetch the development kit again"
            found.add("entry-invalid", split, truth, name, message)
        elif wnid is not None:
            plan.classes[wnid] += 1
    for wnid in sorted(set(plan.classes) - training):
        message = f"{plan.classes[wnid]} images are of this class, which has no training folder; add the folder"
        found.add("category-unknown", split, truth, wnid, message)
        del plan.classes[wnid]
    plan.unlisted = images.unlisted()
    plan.ids = plan.names
    plan.size = len(lines)
    plan.counts = {"images": len(plan.names), "labels": len(lines)}
    _check_real(card, split, plan, found)
    return plan


def plan_pets(card: DatasetCard, split: str, found: Findings) -> SplitPlan:
    """A list with lines ``Abyssinian_100 1 1 1``: the image's name, which begins with its breed, and class numbers."""
    images = ImageFiles(card, split, found)
    plan, breeds = SplitPlan(images), dict[str, str]()
    names = existing(card, split, "names", found)
    if not images.there or names is None:
        return plan
    rows = listed_names(names, split, found)
    suffix = card.splits[split].image_suffix  # type: ignore[index]
    for name, *numbers in rows:
        breed, _, _ = name.rpartition("_")
        if not breed or not numbers or not numbers[0].isdigit():
            message = "the line is not <Breed>_<number> and class numbers; fetch the list again"
            found.add("entry-invalid", split, names, name, message)
            continue
        if breeds.setdefault(numbers[0], breed) != breed:
            message = f"class {numbers[0]} is {breeds[numbers[0]]} in an earlier line; fetch the list again"
            found.add("entry-invalid", split, names, name, message)
        if images.has(name + suffix):
            plan.names.append(name + suffix)
            plan.ids.append(name + suffix)
            plan.classes[breed] += 1
        else:
            message = f"listed in {names.name} and does not exist; complete the data set"
            found.add("image-missing", split, images.path(name + suffix), name, message)
    plan.size = len(rows)
    plan.counts = {"images": len(plan.names), "classes": len(plan.classes)}
    return plan


def _training_classes(card: DatasetCard) -> set[str]:
    """The classes: the training split's class folders. What is wrong with them is told when that split is checked."""
    return ImageFiles(card, "train", Findings(card.name, card.directory)).top_folders()


def _leaf_synsets(path: Path, split: str, found: Findings) -> dict[int, str]:
    """ILSVRC2012_ID to wnid, from the development kit's ``meta.mat``; empty and a finding if it is not usable."""
    from harness.data.imagenet_devkit import read_synsets  # it brings scipy, which no other layout needs

    try:
        return read_synsets(path)
    except HarnessError as error:
        found.add("file-unreadable", split, path, "", str(error).removeprefix(f"{path}: "))
        return {}


def _check_real(card: DatasetCard, split: str, plan: SplitPlan, found: Findings) -> None:
    """ReaL labels: one list of class indices per image, in the order of the file numbers."""
    real = card.splits[split].real  # type: ignore[index]
    path = None if real is None else card.path(split, "real")
    if path is None or not path.exists():  # a download of its own, and optional
        return
    document = read_document(path, split, found)
    if document is None:
        return
    if not isinstance(document, list):
        found.add("file-unreadable", split, path, "", "not a list of lists of class indices; fetch the file again")
        return
    size = card.splits[split].size or len(plan.names)  # type: ignore[index]
    if len(document) != size:
        message = f"{len(document)} label sets for {size} images; complete the images or fetch the file again"
        found.add("count-differs", split, path, "", message)
    classes = len(_training_classes(card))
    for number, labels in enumerate(document):
        good = isinstance(labels, list) and all(type(label) is int and 0 <= label < classes for label in labels)
        if not good:
            message = f"entry {number}: {str(labels)[:60]} is not a list of class indices below {classes}; correct it"
            found.add("entry-invalid", split, path, number, message)
