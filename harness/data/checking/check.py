"""The check of data sets on disk: everything that is wrong, not only the first thing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from harness.cards import DatasetCard
from harness.data.checking.archives import check_archives
from harness.data.checking.cifar import plan_cifar
from harness.data.checking.class_folders import plan_class_folders, plan_devkit, plan_pets
from harness.data.checking.coco import plan_coco
from harness.data.checking.findings import Findings
from harness.data.checking.images import check_images
from harness.data.checking.journal import Journal
from harness.data.checking.label_maps import plan_cityscapes, plan_label_maps
from harness.data.checking.patterns import files_of
from harness.data.checking.plans import Planner, SplitPlan
from harness.data.checking.reading import Reader
from harness.data.checking.report import CardReport, Report, SplitReport, in_order
from harness.data.checking.shared import Split, check_between, check_duplicates
from harness.data.checking.voc import plan_voc
from harness.data.checking.vqa import plan_vqa
from harness.errors import HarnessError
from harness.progress import Reporter

PLANNERS: dict[str, Planner] = {
    "imagefolder": plan_class_folders,
    "imagenet_devkit": plan_devkit,
    "cifar": plan_cifar,
    "pets": plan_pets,
    "coco": plan_coco,
    "voc": plan_voc,
    "cityscapes": plan_cityscapes,
    "label_maps": plan_label_maps,
    "vqa": plan_vqa,
}


def check(
    cards: Sequence[DatasetCard],
    workers: int | None = None,
    reporter: Reporter | None = None,
    fresh: bool = False,
) -> Report:
    """Verify data sets on disk.

    What was read from a file is kept in the cache folder, so that an interrupted check goes on where it was and a
    repeated one reads only what changed.

    Args:
        cards: The data sets. Between several, images that one trains on and another is evaluated on are found, too.
        workers: Processes that decode images; None for one per processor, 0 for none.
        reporter: Shows progress.
        fresh: Read every file, whatever is known from before.

    Returns:
        All findings.

    Raises:
        HarnessError: A data set is not there at all, a card is named twice, or the cache folder cannot be written.
    """
    names = [card.name for card in cards]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise HarnessError(f"data check: {twice!r} is named twice; name each card once")
    for card in cards:
        _require_present(card)
    reporter = reporter or Reporter(quiet=True)
    findings: dict[str, Findings] = {}
    reports: list[CardReport] = []
    contents: dict[str, dict[str, Split]] = {}
    forgotten: set[Path] = set()
    with Reader(os.cpu_count() or 1 if workers is None else workers) as reader:
        for card in cards:
            found = findings[card.name] = Findings(card.name, card.directory)
            forget = fresh and card.directory not in forgotten  # once: another card may have the same folder
            forgotten.add(card.directory)
            with Journal(card.directory, forget) as journal:
                try:
                    report, contents[card.name] = _check_card(card, found, journal, reader, reporter)
                except OSError as error:
                    problem = f"cannot be read ({error.strerror}); check the disk and the permissions"
                    raise HarnessError(f"{error.filename or card.directory}: {problem}") from None
            reports.append(report)
    for trained in cards:
        for evaluated in cards:
            if trained is not evaluated:
                training = contents[trained.name]["train"]
                evaluation = contents[evaluated.name][evaluated.evaluation_split]
                check_between(trained, training, evaluated, evaluation, findings[evaluated.name])
    everything = [finding for found in findings.values() for finding in found.found]
    return Report(tuple(reports), in_order(everything, names, ["train", "val", "test"]))


def images_there(card: DatasetCard, split: str) -> bool:
    """Whether the folder of a split's images, or one of the files that hold them, exists."""
    return card.path(split, "images").exists() or bool(files_of(card, split)[0])


def _require_present(card: DatasetCard) -> None:
    if not any(images_there(card, split) for split in card.splits):
        raise HarnessError(f"card {card.name}: {card.directory} holds the images of no split; {card.how_to_get}")


def _check_card(
    card: DatasetCard, found: Findings, journal: Journal, reader: Reader, reporter: Reporter
) -> tuple[CardReport, dict[str, Split]]:
    archives = check_archives(card, found, journal, reporter)
    reporter.say(f"{card.name}: reading annotations and folders below {card.directory}")
    plans = {str(split): PLANNERS[card.adapter](card, split, found) for split in card.splits}
    _check_counts(card, plans, found)
    _check_classes(card, plans, found)
    _report_unlisted(card, plans, found)
    splits: dict[str, Split] = {}
    for split, plan in plans.items():
        splits[split] = plan, check_images(card, split, plan, found, journal, reader, reporter)
    check_duplicates(card, splits, found)
    report = CardReport(
        name=card.name,
        task=card.task,
        adapter=card.adapter,
        root=str(card.directory),
        splits={name: SplitReport(plan.counts, read.read, read.reused) for name, (plan, read) in splits.items()},
        archives=tuple(archives),
    )
    return report, splits


def _check_counts(card: DatasetCard, plans: dict[str, SplitPlan], found: Findings) -> None:
    for split, plan in plans.items():
        entry = card.splits[split]  # type: ignore[index]
        unit = "questions" if card.task == "vqa" else "images"
        for what, stated, counted in (
            (unit, entry.size, plan.size),
            ("objects", entry.objects, plan.objects),
        ):
            if stated is not None and counted is not None and counted != stated:
                message = f"{counted:,} {what}, and the card states {stated:,}; complete the data or correct the card"
                found.add("count-differs", split, _source(card, split), what, message)


def _check_classes(card: DatasetCard, plans: dict[str, SplitPlan], found: Findings) -> None:
    trained = plans["train"].classes
    if not any(trained.values()):  # the layout does not tell, or the training split could not be read
        return
    for split, plan in plans.items():
        for name, count in sorted(plan.classes.items()):
            if split != "train" and count and not trained[name]:
                message = (
                    f"{split} has {count:,} of this class and train has none; add training data or leave the class out"
                )
                found.add("class-without-training", split, _source(card, split), name, message)


def _source(card: DatasetCard, split: str) -> Path:
    """The file or folder that tells what is in a split."""
    entry = card.splits[split]  # type: ignore[index]
    return card.directory / (entry.names or entry.questions or entry.annotations or entry.labels or entry.images)


def _report_unlisted(card: DatasetCard, plans: dict[str, SplitPlan], found: Findings) -> None:
    """Splits may share a folder: an image there is unlisted if none of them names it."""
    reported: set[str] = set()
    for split, plan in plans.items():
        place = card.splits[split].images  # type: ignore[index]
        if plan.images is None or place in reported:
            continue
        reported.add(place)
        sharing = [plans[str(other)].unlisted for other, entry in card.splits.items() if entry.images == place]
        for name in sorted(set.intersection(*sharing)):
            message = "no annotation names this image and it is not used; complete the annotations or remove it"
            found.add("image-unlisted", split, plan.images.path(name), name, message)
