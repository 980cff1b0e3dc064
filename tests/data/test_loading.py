"""Order of samples, augmentation and batches."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

import pytest
import torch

from harness.cards import load_card
from harness.data import open_split
from harness.data.batches import PADDING, DetectionBatch, VqaBatch
from harness.data.config import TaskConfig
from harness.data.loading import EvaluationOrder, TaskData, TrainingOrder, collate, loader
from harness.data.transforms import derive_seed

pytestmark = pytest.mark.usefixtures("tiny_suite")


def task_data(name: str = "shapes-classification", training: bool = True, seed: int = 0, **config: Any) -> TaskData:
    adapter = open_split(load_card(name), "train")
    task = TaskConfig.model_validate({"dataset": name, "batch_size": 5, "image_size": 64} | config)
    return TaskData(adapter, task, training, seed, getattr(adapter, "question_vocabulary", ()))


def places(data: TaskData, batches: int, start: int = 0) -> list[tuple[int, int]]:
    return [place for batch in islice(TrainingOrder(data, 5, start), batches) for place in batch]


def test_every_epoch_has_every_sample_once_in_an_order_of_its_own() -> None:
    data = task_data()
    drawn = places(data, 24)  # 120 places, five epochs of 24
    assert Counter(index for epoch, index in drawn if epoch == 0) == Counter(range(24))
    assert Counter(index for _, index in drawn) == Counter(dict.fromkeys(range(24), 5))
    orders = [[index for epoch, index in drawn if epoch == number] for number in range(5)]
    assert len({tuple(order) for order in orders}) == 5


def test_a_later_start_continues_the_same_order() -> None:
    data = task_data()
    assert places(data, 10)[5 * 4 :] == places(data, 6, start=4)


def test_the_order_depends_on_the_seed_and_the_data_set_only() -> None:
    assert places(task_data(), 5) == places(task_data(flip=0.5, image_size=32), 5)
    assert places(task_data(), 5) != places(task_data(seed=1), 5)
    assert places(task_data(), 5) != places(task_data("shapes-detection"), 5)


def test_evaluation_takes_every_sample_once_in_canonical_order() -> None:
    assert [index for batch in EvaluationOrder(7, 3) for _, index in batch] == list(range(7))
    assert len(EvaluationOrder(7, 3)) == 3


@pytest.mark.parametrize("name", ["shapes-classification", "shapes-detection", "shapes-segmentation", "shapes-vqa"])
def test_batches_do_not_depend_on_the_number_of_loader_processes(name: str) -> None:
    data = task_data(name, flip=0.5, crop=0.5, questions=3)
    inline, forked = (list(islice(loader(data, TrainingOrder(data, 5), workers), 2)) for workers in (0, 2))
    for a, b in zip(inline, forked, strict=True):
        for field, value in vars(a).items():
            other = getattr(b, field)
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, other), field
            elif isinstance(value, tuple) and value and isinstance(value[0], torch.Tensor):
                assert all(torch.equal(x, y) for x, y in zip(value, other, strict=True)), field
            else:
                assert value == other, field


def test_augmentation_is_a_function_of_seed_epoch_and_id() -> None:
    data = task_data(flip=0.5, crop=0.3)
    first = data[(0, 3)]["image"]
    torch.rand(5)
    assert torch.equal(data[(0, 3)]["image"], first)
    assert not torch.equal(data[(1, 3)]["image"], first)
    assert not torch.equal(task_data(flip=0.5, crop=0.3, seed=1)[(0, 3)]["image"], first)


def test_augmentation_leaves_the_global_random_stream_alone() -> None:
    data = task_data(flip=0.5, crop=0.3)
    before = torch.get_rng_state()
    data[(0, 0)]
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_is_not_augmented() -> None:
    data = task_data(training=False, flip=1.0, crop=0.3)
    image = torch.from_numpy(data.adapter[2].image).permute(2, 0, 1)
    assert torch.equal(data[(-1, 2)]["image"], image)


def test_a_flip_moves_boxes_with_the_image() -> None:
    plain, flipped = task_data("shapes-detection"), task_data("shapes-detection", flip=1.0)
    for index in range(5):
        a, b = plain[(0, index)], flipped[(0, index)]
        assert torch.equal(b["image"], a["image"].flip(-1))
        expected = a["boxes"].clone()
        expected[:, [0, 2]] = 64 - a["boxes"][:, [2, 0]]
        torch.testing.assert_close(b["boxes"], expected)


def test_a_resize_scales_boxes_and_keeps_mask_ids() -> None:
    half = task_data("shapes-detection", image_size=[32, 128])[(0, 0)]
    whole = task_data("shapes-detection")[(0, 0)]
    torch.testing.assert_close(half["boxes"], whole["boxes"] * torch.tensor([2, 0.5, 2, 0.5]))
    mask = task_data("shapes-segmentation", image_size=48)[(0, 0)]["mask"]
    assert mask.shape == (48, 48)
    assert set(mask.unique().tolist()) <= {*range(9), 255}


@pytest.mark.parametrize("crop", [1.0, 0.3])
def test_a_batch_keeps_the_memory_layout_of_decoded_images(crop: float) -> None:
    data = task_data(image_size=48, crop=crop)
    batch = data.batch([(0, 1), (0, 2)])
    assert batch.images.shape == (2, 3, 48, 48)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    alone = [data[0, index]["image"] for index in (1, 2)]
    assert torch.equal(batch.images, torch.stack(alone))


def test_boxes_that_a_crop_leaves_thinner_than_a_pixel_are_not_learned() -> None:
    data = task_data("shapes-detection", crop=0.05)
    for epoch in range(20):
        boxes = data[(epoch, 0)]["boxes"]
        assert ((boxes[:, 2:] - boxes[:, :2]) >= 1).all()
        assert boxes.min() >= 0 if len(boxes) else True
        assert boxes.max() <= 64 if len(boxes) else True


def test_a_question_batch_points_to_its_images_and_pads_words() -> None:
    data = task_data("shapes-vqa", questions=2)
    batch = collate([data[(0, 0)], data[(0, 1)], data[(0, 2)]])
    assert isinstance(batch, VqaBatch)
    assert batch.image_index.tolist() == [0, 0, 1, 1, 2, 2]
    assert batch.words.shape[0] == batch.targets.shape[0] == len(batch.question_ids) == 6
    lengths = (batch.words != PADDING).sum(1)
    assert lengths.max() == batch.words.shape[1]
    assert (batch.targets.max(1).values > 0.5).all()  # the suite's answers are all in the vocabulary


def test_questions_drawn_in_training_differ_by_epoch_and_all_are_asked_in_evaluation() -> None:
    data = task_data("shapes-vqa", questions=2)
    drawn = {tuple(data[(epoch, 0)]["question_ids"].tolist()) for epoch in range(10)}
    assert len(drawn) > 1
    every = task_data("shapes-vqa", training=False, questions=2)[(-1, 0)]["question_ids"]
    assert len(every) == 6


def test_crowd_boxes_are_not_learned() -> None:
    data = task_data("shapes-detection")
    sample = data.adapter[0]
    from dataclasses import replace

    class Crowded:
        def __getitem__(self, index: int) -> Any:
            crowd = sample.crowd.copy()
            crowd[0] = True
            return replace(sample, crowd=crowd)

    data.adapter = Crowded()  # type: ignore[assignment]
    batch = collate([data[(0, 0)]])
    assert isinstance(batch, DetectionBatch)
    assert len(batch.boxes[0]) == len(sample.boxes) - 1


def test_derived_seeds_are_fixed_numbers() -> None:
    assert derive_seed(0, "shapes-vqa", 1, "7") == derive_seed(0, "shapes-vqa", 1, "7") < 2**63
    assert derive_seed(0, "a") != derive_seed(0, "b")


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_the_slices_of_several_processes_are_the_batches_of_one(world: int) -> None:
    data = task_data()
    slices = [list(islice(TrainingOrder(data, 5, 3, rank, world), 6)) for rank in range(world)]
    joined = [[place for part in parts for place in part] for parts in zip(*slices, strict=True)]
    assert joined == list(islice(TrainingOrder(data, 5, 3), 6))
    assert {len(part) for parts in slices for part in parts} <= {5 // world, -(-5 // world)}


@pytest.mark.parametrize("world", [2, 3, 9])
def test_whole_evaluation_batches_are_dealt_to_processes_in_turn(world: int) -> None:
    hands = [list(EvaluationOrder(21, 4, rank, world)) for rank in range(world)]
    assert sum(map(len, hands)) == 6
    dealt = [hands[number % world][number // world] for number in range(6)]
    assert dealt == list(EvaluationOrder(21, 4))
