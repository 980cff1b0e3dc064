"""Tasks that take another task's images: which ones, transformed how, and what is refused."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch
from tests_support import document

from harness.data.batches import Batch
from harness.data.collation import enlarge
from harness.data.joint_images import matching_rows, same_images, share_images
from harness.data.loading import TaskData, TrainingOrder
from harness.errors import HarnessError
from harness.run_data import open_data, task_data
from harness.submission import Submission

NAMES = ("leader", "follower")
LEADER = "shapes-segmentation"
SHARED = {"shapes-classification", "shapes-detection", "shapes-vqa"}


def submission(feeding: dict[str, Any] | None = None, **changes: Any) -> Submission:
    raw = document()
    fed = {"batch_size": 3, "image_size": 64} | (feeding or {})
    raw["tasks"] = [{"dataset": LEADER, **fed}, *({"dataset": name, "images_of": LEADER} for name in sorted(SHARED))]
    return Submission.model_validate(raw | changes)


def opened(one: Submission, seed: int = 0) -> dict[str, TaskData]:
    splits = open_data(one)
    return {name: task_data(one, seed, splits, name, training=True) for name in splits.train}


def steps(data: dict[str, TaskData], count: int) -> list[dict[str, Batch]]:
    places = {name: islice(TrainingOrder(one, 3), count) for name, one in data.items()}
    batches = {name: [data[name].batch(places_of_step) for places_of_step in found] for name, found in places.items()}
    return [{name: batches[name][step] for name in data} for step in range(count)]


def test_ids_are_matched_as_they_are_or_by_their_last_number() -> None:
    assert matching_rows(["b", "a"], ["a", "c", "b"], NAMES).tolist() == [2, 0]
    assert matching_rows(
        ["391895", "9"], ["COCO_train2014_000000000009", "COCO_train2014_000000391895"], NAMES
    ).tolist() == [1, 0]
    assert matching_rows(["a/0000"], ["x_0", "x_1"], NAMES).tolist() == [0]


@pytest.mark.parametrize(
    ("leader", "follower", "reason"),
    [
        (["1", "2"], ["x1"], "no image of the id '2'"),
        (["1", "2"], ["a_1", "b_1", "2x2"], "several images whose ids end in the same number"),
        (["a_1", "b_1"], ["c1", "c2"], "several images whose ids end in the same number"),
    ],
)
def test_ids_that_do_not_tell_the_image_are_refused(leader: list[str], follower: list[str], reason: str) -> None:
    with pytest.raises(HarnessError, match=f"follower: images_of: .* leader, for it has {reason}"):
        matching_rows(leader, follower, NAMES)


@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize(
    "feeding", [{"flip": 0.5}, {"flip": 0.5, "crop": 0.3}, {"augment": "color"}, {"cache": 64, "flip": 0.5}]
)
def test_all_tasks_get_the_same_pixels_step_after_step(feeding: dict[str, Any]) -> None:
    for batches in steps(opened(submission(feeding)), 12):
        for name in SHARED:
            assert torch.equal(batches[name].images, batches[LEADER].images), name
    assert len({batch[LEADER].images.numpy().tobytes() for batch in steps(opened(submission(feeding)), 2)}) == 2


@pytest.mark.usefixtures("tiny_suite")
def test_the_leader_is_fed_as_if_nobody_followed() -> None:
    alone = submission({"flip": 0.5})
    alone = alone.model_copy(update={"tasks": alone.tasks[:1]})
    for one, other in zip(steps(opened(alone), 5), steps(opened(submission({"flip": 0.5})), 5), strict=True):
        assert one[LEADER].ids == other[LEADER].ids
        assert torch.equal(one[LEADER].images, other[LEADER].images)


@pytest.mark.usefixtures("tiny_suite")
def test_a_smoke_run_follows_the_leaders_first_images() -> None:
    one = submission(evaluation={"limit": 5})
    for batches in steps(opened(one), 3):
        for name in SHARED:
            assert torch.equal(batches[name].images, batches[LEADER].images)
    assert {len(data) for data in opened(one).values()} == {5}


@pytest.mark.usefixtures("tiny_suite")
def test_batches_hold_the_very_images_of_the_leader_also_in_parts() -> None:
    one = submission()
    loaded = steps(opened(one), 1)[0]
    shared = share_images(loaded, one.leaders())
    for name in SHARED:
        assert not same_images(loaded[name], loaded[LEADER])
        assert same_images(shared[name], shared[LEADER])
        assert same_images(shared[name].rows(1, 3), shared[LEADER].rows(1, 3))
        assert not same_images(shared[name].rows(0, 2), shared[LEADER].rows(1, 3))
        assert same_images(enlarge(shared[name], (64, 64)), enlarge(shared[LEADER], (64, 64)))
    resting = {name: loaded[name] for name in SHARED}
    assert share_images(resting, one.leaders()) == resting


@pytest.mark.usefixtures("tiny_suite")
def test_another_picture_under_the_same_number_is_refused() -> None:
    one = submission()
    loaded = steps(opened(one), 1)[0]
    loaded["shapes-vqa"].images[1, 0, 5, 5] ^= 1
    with pytest.raises(
        HarnessError, match=r"shapes-vqa: images_of: its image .* is another picture than image .*same pixels"
    ):
        share_images(loaded, one.leaders())


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"images_of": "shapes-segmentaton"}, "did you mean 'shapes-segmentation'"),
        ({"images_of": "shapes-vqa"}, "no other task with images of its own"),
        ({"images_of": "shapes-detection"}, "no other task with images of its own"),
        (
            {"images_of": LEADER, "flip": 0.5},
            r"flip: 0.5, but it takes the images of shapes-segmentation.*leave flip out",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused(task: dict[str, Any], message: str) -> None:
    raw = document()
    fed = {"batch_size": 2, "image_size": 64}
    raw["tasks"] = [
        {"dataset": LEADER, **fed},
        {"dataset": "shapes-detection", "images_of": LEADER},
        {"dataset": "shapes-vqa", **({} if task["images_of"] == LEADER else fed), **task},
    ]
    with pytest.raises(ValueError, match=message):
        Submission.model_validate(raw)


def test_a_share_of_the_images_is_refused() -> None:
    with pytest.raises(ValueError, match="fraction: which images are taken depends on a task's own classes"):
        submission({"fraction": 0.5})


def test_the_key_changes_a_fingerprint_only_where_it_is_used() -> None:
    together = submission()
    apart = tuple(task.model_copy(update={"images_of": None}) for task in together.tasks)
    plain = together.model_copy(update={"tasks": apart})
    assert together.fingerprint() != plain.fingerprint()
    written = document()
    written["tasks"] = [{"dataset": task.dataset, "batch_size": 3, "image_size": 64} for task in apart]
    assert plain.fingerprint() == Submission.model_validate(written).fingerprint()
