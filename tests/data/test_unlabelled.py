"""Images without labels: what their batches hold, and which streams they are drawn from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from harness.cards import load_card
from harness.data import open_split
from harness.data.batches import Batch, VqaBatch
from harness.data.config import TaskConfig
from harness.data.image_cache import image_cache
from harness.data.loading import TaskData, TrainingOrder
from harness.data.unlabelled import UnlabelledData
from harness.progress import Reporter

pytestmark = pytest.mark.usefixtures("tiny_suite")
NAMES = ("shapes-classification", "shapes-detection", "shapes-segmentation", "shapes-vqa")


def labelled(name: str, cached: bool = False, **config: Any) -> TaskData:
    adapter = open_split(load_card(name), "train")
    raw = {"dataset": name, "batch_size": 4, "image_size": 64, "fraction": 0.5, "questions": 2} | config
    task = TaskConfig.model_validate(raw | ({"cache": 64} if cached else {}))
    cache = image_cache(adapter, (64, 64), Reporter(quiet=True)) if cached else None
    return TaskData(adapter, task, True, 0, getattr(adapter, "question_vocabulary", ()), cache=cache)


def rest(data: TaskData) -> UnlabelledData:
    assert data.rows is not None
    return UnlabelledData(data, np.setdiff1d(np.arange(len(data.adapter)), data.rows))


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_has_images_and_questions_and_nothing_to_be_right_about(name: str, cached: bool) -> None:
    data = labelled(name, cached)
    pool = rest(data)
    assert len(pool) > 2
    assert not set(pool.names) & set(data.names)
    batch = pool.batch([(0, 0), (0, 1), (1, 2)])
    assert batch.images.shape == (3, 3, 64, 64)
    assert batch.ids == tuple(pool.names[:3])
    if name == "shapes-vqa":
        assert isinstance(batch, VqaBatch)
        assert batch.targets.shape == (6, 0)
        assert len(batch.texts) == 6
    else:
        assert type(batch) is Batch


@pytest.mark.parametrize("name", NAMES)
def test_images_are_those_that_the_labelled_data_would_have(name: str) -> None:
    whole = labelled(name, fraction=1.0)
    pool = UnlabelledData(whole, np.arange(len(whole)))
    assert torch.equal(pool.batch([(0, 3), (0, 5)]).images, whole.batch([(0, 3), (0, 5)]).images)
    assert pool.batch([(0, 3)]).sizes.tolist() == whole.batch([(0, 3)]).sizes.tolist()


def test_padded_images_are_padded_as_labelled_ones() -> None:
    whole = labelled("shapes-segmentation", fraction=1.0, resize="native", image_size=96)
    pool = UnlabelledData(whole, np.arange(len(whole)))
    one, other = pool.batch([(0, 3)]), whole.batch([(0, 3)])
    assert one.images.shape == other.images.shape == (1, 3, 96, 96)
    assert one.contents is not None
    assert other.contents is not None
    assert one.contents.tolist() == other.contents.tolist()


def test_order_and_augmentation_are_streams_of_their_own() -> None:
    whole = labelled("shapes-classification", fraction=1.0, crop=0.3)
    pool = UnlabelledData(whole, np.arange(len(whole)))
    order = next(iter(TrainingOrder(whole, 8)))
    assert next(iter(TrainingOrder(pool, 8))) != order
    assert not torch.equal(pool.batch(order).images, whole.batch(order).images)
    assert torch.equal(pool.batch(order).images, pool.batch(order).images)
    assert torch.equal(pool.still().batch(order).images, whole.still().batch(order).images)
