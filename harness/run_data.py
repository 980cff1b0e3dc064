"""What a run reads: the splits of its tasks, how they are fed, and the network for their classes and words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from harness.cards import DatasetCard
from harness.data import open_split
from harness.data.config import TaskConfig
from harness.data.image_cache import ImageCache, image_cache
from harness.data.loading import TaskData
from harness.data.samples import Adapter
from harness.data.shuffling import ShuffledLabels
from harness.errors import HarnessError
from harness.models.class_names import class_names
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.models.substitution import Substitution
from harness.progress import Reporter
from harness.scoring import rehearse
from harness.submission import Submission
from harness.training.engine import Engine
from harness.training.placeholders.objectives.objective import add_objectives


@dataclass(frozen=True)
class Splits:
    """The data of a run, by dataset name; the selection splits only where something is selected."""

    train: dict[str, Adapter]
    evaluation: dict[str, Adapter]
    selection: dict[str, Adapter] = field(default_factory=dict)


def open_data(submission: Submission) -> Splits:
    """Open the training and evaluation split of every task, and the selection split where the submission selects.

    Raises:
        HarnessError: Data is missing or not valid.
    """
    limit = submission.evaluation.limit
    cards = submission.cards()
    led = submission.leaders()
    splits = Splits(
        # The first images of one layout are not those of another, so who takes another's looks for them in all.
        {name: open_split(card, "train", None if name in led else limit) for name, card in cards.items()},
        {name: open_split(card, card.evaluation_split, limit) for name, card in cards.items()},
    )
    if submission.training.selection is not None:
        for name, card in cards.items():
            of_training = card.selection_split == "train"
            splits.selection[name] = (
                splits.train[name] if of_training else open_split(card, card.selection_split, limit)
            )
    for name, adapter in [*splits.evaluation.items(), *splits.selection.items()]:
        if adapter.classes != splits.train[name].classes:
            raise HarnessError(
                f"card {name}: splits 'train' and {adapter.split!r} list different classes; they must be the same"
            )
        rehearse(adapter)
    return splits


def build_network(submission: Submission, splits: Splits) -> MultiTaskNetwork:
    """The network for the classes and words of the data, drawn from the current random state."""
    cards = submission.cards()
    specs = {
        name: TaskSpec(
            adapter.task,
            len(adapter.classes),
            len(getattr(adapter, "question_vocabulary", ())),
            class_names(cards[name], adapter.classes) if adapter.task == "classification" else (),
        )
        for name, adapter in splits.train.items()
    }
    network = MultiTaskNetwork(submission.model, specs)
    add_objectives(network, submission)
    if submission.training.placeholders.substitution is not None:
        network.substitution = Substitution(network)
    # Channels last is the faster layout of convolutions on CPUs and GPUs alike.
    return network.to(memory_format=torch.channels_last)


def cache_of(
    config: TaskConfig, adapter: Adapter, engine: Engine, reporter: Reporter, workers: int
) -> ImageCache | None:
    """The image cache that a task asks for, made by the main process if it is not there. All processes."""
    size, interpolation = config.cache, config.interpolation
    if size is None:
        return None
    if engine.world > 1:
        engine.from_main(lambda: bool(image_cache(adapter, size, reporter, workers, interpolation)))
    return image_cache(adapter, size, reporter, workers, interpolation)


def task_data(
    submission: Submission, seed: int, splits: Splits, name: str, training: bool, cache: ImageCache | None = None
) -> TaskData:
    """One task's split as the loader reads it: training with augmentation, or evaluation without."""
    config = submission.task(name)
    adapter = (splits.train if training else splits.evaluation)[name]
    words = getattr(splits.train[name], "question_vocabulary", ())
    bad, max_words = submission.training.on_bad_image, submission.model.text.max_words
    if not training:
        return TaskData(adapter, config, training, seed, words, max_words, cache, bad)
    if config.shuffle_labels:
        adapter = ShuffledLabels(adapter, seed)
    leader = splits.train[config.images_of] if config.images_of is not None else None
    followed = name in submission.leaders().values()
    return TaskData(adapter, config, training, seed, words, max_words, cache, bad, leader=leader, followed=followed)


def selection_data(
    submission: Submission, seed: int, splits: Splits, name: str, cache: ImageCache | None = None
) -> TaskData:
    """One task's selection split without augmentation: where it is the training split, what is not trained on.

    Raises:
        HarnessError: That is nothing.
    """
    config = submission.task(name)
    adapter = splits.selection[name]
    words = getattr(splits.train[name], "question_vocabulary", ())
    held_out = adapter.split == "train"
    max_words = submission.model.text.max_words
    data = TaskData(adapter, config, False, seed, words, max_words, cache, held_out=held_out)
    if not len(data):
        raise HarnessError(
            f"training.selection: fraction {config.fraction:g} of {name} leaves no image over to select on, for every"
            " class gives its share rounded up; lower it"
        )
    return data


def shared_images(cards: Mapping[str, DatasetCard], splits: Splits) -> list[str]:
    """Sentences about images that one task trains on and another is evaluated on.

    COCO and VQA v2 number the same photographs alike (VQA v2's validation images lie inside COCO's train2017), so
    image ids tell. Other layouts have file names that mean nothing across data sets.
    """
    numbered = [name for name, card in cards.items() if card.adapter in ("coco", "vqa")]
    found = []
    for trained in numbered:
        for evaluated in numbered:
            if trained != evaluated:
                common = len(set(splits.train[trained].ids) & set(splits.evaluation[evaluated].ids))
                if common:
                    found.append(
                        f"{common} images that {evaluated} is evaluated on have the ids of training images of {trained}"
                    )
    return found
