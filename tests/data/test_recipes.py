"""Training and evaluation recipes: geometry against torchvision's or by hand, and what is refused."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torchvision import tv_tensors
from torchvision.transforms import v2

from harness.data.collation import collate
from harness.data.config import TaskConfig
from harness.data.transforms import IGNORE, Transform, derive_seed
from harness.errors import HarnessError


def config(**fields: Any) -> TaskConfig:
    return TaskConfig.model_validate({"dataset": "d", "batch_size": 1, "image_size": 64} | fields)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(375, 500), (500, 375), (64, 64), (33, 200), (80, 81)])
@pytest.mark.parametrize("fraction", [0.875, 0.95, 1.0])
def test_evaluation_crops_are_torchvisions(size: tuple[int, int], fraction: float) -> None:
    image = picture(*size)
    reference = v2.Compose([v2.Resize([math.floor(64 / fraction)], antialias=True), v2.CenterCrop([64, 64])])
    ours = Transform(config(resize="crop", crop_fraction=fraction), training=False)(image, ())["image"]
    assert torch.equal(ours, reference(torch.from_numpy(image).permute(2, 0, 1)))


@pytest.mark.parametrize("size", [(375, 500), (30, 40)])
def test_random_crops_are_torchvisions(size: tuple[int, int]) -> None:
    image, boxes = picture(*size), np.array([[2, 3, 20, 30]], dtype=np.float32)
    mask = image[:, :, 0].copy()
    for epoch in range(10):
        ours = Transform(config(crop=0.2), training=True)(image, (epoch,), boxes=boxes, mask=mask)
        torch.manual_seed(derive_seed(epoch))
        reference = v2.Compose(
            [v2.RandomResizedCrop([64, 64], scale=(0.2, 1.0), antialias=True), v2.ClampBoundingBoxes()]
        )
        sample = {
            "image": tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1)),
            "boxes": tv_tensors.BoundingBoxes(torch.from_numpy(boxes), format="XYXY", canvas_size=size),
            "mask": tv_tensors.Mask(torch.from_numpy(mask)),
        }
        for name, value in reference(sample).items():
            assert torch.equal(ours[name], value.to(ours[name].dtype)), name


def test_crops_of_images_alone_have_torchvisions_limits_and_pixels() -> None:
    light = Transform(config(crop=0.2, flip=0.5), training=True)._light
    assert light is not None
    image = picture(300, 400)
    shares, aspects, flips = [], [], 0
    for epoch in range(300):
        draw = random.Random(derive_seed(epoch))
        top, left, height, width = light.box(300, 400, draw)
        shares.append(height * width / (300 * 400))
        aspects.append(width / height)
        whole = tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1))
        expected = v2.functional.resized_crop(whole, top, left, height, width, [64, 64], antialias=True)
        flipped = draw.random() < 0.5
        flips += flipped
        if epoch < 20:
            assert torch.equal(
                light(image, (epoch,)), expected.flip(-1) if flipped else expected.as_subclass(torch.Tensor)
            )
    assert 0.19 < min(shares) < 0.25
    assert 0.9 < max(shares) <= 1
    assert 0.73 < min(aspects) < 0.8
    assert 1.27 < max(aspects) < 1.36
    assert 0.4 < np.median(shares) < 0.7
    assert 120 < flips < 180


@pytest.mark.parametrize(
    ("size", "expected"), [((10, 1000), (0, 493, 10, 13)), ((1000, 10), (493, 0, 13, 10)), ((1, 1), (0, 0, 1, 1))]
)
def test_where_no_crop_fits_the_centre_of_a_valid_aspect_is_taken(
    size: tuple[int, int], expected: tuple[int, int, int, int]
) -> None:
    light = Transform(config(crop=0.9), training=True)._light
    assert light is not None
    assert light.box(*size, random.Random(0)) == expected


def test_an_oblong_evaluation_crop_is_covered_by_the_image() -> None:
    out = Transform(config(resize="crop", image_size=[32, 96], crop_fraction=1), False)(picture(100, 100), ())["image"]
    assert out.shape == (3, 32, 96)
    assert out.float().std() > 10  # no border of padding, which is black


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (800, 1067)), ((640, 480), (1067, 800)), ((400, 1200), (444, 1333)), ((2000, 2000), (800, 800))],
)
def test_fit_keeps_the_aspect_within_the_shorter_and_longer_edge(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    boxes = np.array([[10, 20, 110, 220]], dtype=np.float32)
    out = Transform(config(resize="fit", image_size=[800, 1333]), False)(picture(*size), (), boxes=boxes)
    assert tuple(out["image"].shape[-2:]) == expected
    ratio = torch.tensor([expected[1] / size[1], expected[0] / size[0]]).repeat(2)
    torch.testing.assert_close(out["boxes"][0], torch.from_numpy(boxes)[0] * ratio)


def test_random_scale_stays_within_its_factors_and_is_drawn_anew_each_epoch() -> None:
    transform = Transform(config(resize="fit", image_size=100, scale=[0.5, 1.0]), training=True)
    sides = [transform(picture(50, 50), (0, epoch, "a"))["image"].shape[-1] for epoch in range(40)]
    assert min(sides) >= 50
    assert max(sides) <= 100
    assert len(set(sides)) > 10
    assert transform(picture(50, 50), (0, 3, "a"))["image"].shape[-1] == sides[3]


def test_a_scale_above_one_is_cropped_to_the_square() -> None:
    transform = Transform(config(resize="fit", image_size=64, scale=[2, 2]), training=True)
    boxes = np.array([[0, 0, 100, 100]], dtype=np.float32)
    out = transform(picture(100, 100), (0, 0, "a"), boxes=boxes)
    assert out["image"].shape == (3, 64, 64)
    assert out["boxes"].tolist() == [[0, 0, 64, 64]]  # the whole image is one box, whatever part of it is left


def test_native_crops_keep_image_and_mask_together() -> None:
    mask = np.random.default_rng(1).integers(0, 20, (90, 150), dtype=np.uint8)
    image = np.repeat(mask[:, :, None], 3, axis=2)
    transform = Transform(config(resize="native", image_size=[32, 64], flip=0.5), training=True)
    corners = set()
    for epoch in range(8):
        out = transform(image, (0, epoch, "a"), mask=mask)
        assert out["image"].shape == (3, 32, 64)
        assert torch.equal(out["image"][0].long(), out["mask"])
        corners.add(tuple(out["mask"][0, :4].tolist()))
    assert len(corners) > 4


def test_native_evaluation_leaves_the_image_alone() -> None:
    image = picture(90, 150)
    out = Transform(config(resize="native"), training=False)(image, ())["image"]
    assert torch.equal(out.permute(1, 2, 0), torch.from_numpy(image))


def test_smaller_images_are_padded_on_the_right_and_below_and_the_padding_is_ignored() -> None:
    items = [
        {
            "id": str(n),
            "size": (height, width),
            "image": torch.full((3, height, width), 9, dtype=torch.uint8),
            "mask": torch.full((height, width), 4),
            "canvas": (32, 32),
        }
        for n, (height, width) in enumerate([(20, 40), (33, 10)])
    ]
    batch: Any = collate(items)
    assert batch.images.shape == (2, 3, 64, 64)
    assert batch.contents.tolist() == [[20, 40], [33, 10]]
    for row, (height, width) in enumerate(batch.contents.tolist()):
        assert (batch.images[row, :, :height, :width] == 9).all()
        assert batch.images[row].sum() == 9 * 3 * height * width
        assert (batch.masks[row, :height, :width] == 4).all()
        assert (batch.masks[row] == IGNORE).sum() == 64 * 64 - height * width


def test_a_batch_without_padding_says_so() -> None:
    item = {"id": "a", "size": (64, 32), "image": torch.zeros(3, 64, 32, dtype=torch.uint8), "label": 0}
    assert collate([item | {"canvas": (32, 32)}] * 2).contents is None
    assert collate([item] * 2).contents is None


@pytest.mark.parametrize("augment", ["color", "randaugment", "trivialaugment"])
def test_augmentation_changes_pixels_as_a_function_of_its_key(augment: str) -> None:
    transform, image = Transform(config(augment=augment), training=True), picture(64, 64)
    first = [transform(image, (0, epoch, "a"))["image"] for epoch in range(6)]
    torch.rand(3)
    assert all(torch.equal(transform(image, (0, epoch, "a"))["image"], one) for epoch, one in enumerate(first))
    assert sum(not torch.equal(one, first[0]) for one in first) >= 3
    still = Transform(config(augment=augment), training=False)(image, ())["image"]
    assert torch.equal(still.permute(1, 2, 0), torch.from_numpy(image))


def test_colour_augmentation_leaves_boxes_and_masks_alone() -> None:
    boxes, mask = np.array([[1, 2, 30, 40]], dtype=np.float32), np.full((64, 64), 7, dtype=np.uint8)
    out = Transform(config(augment="color"), training=True)(picture(64, 64), (0, 0, "a"), boxes=boxes, mask=mask)
    assert out["boxes"].tolist() == boxes.tolist()
    assert (out["mask"] == 7).all()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"resize": "fit", "crop": 0.5}, "crop"),
        ({"scale": [0.5, 1]}, "scale"),
        ({"resize": "fit", "scale": [1, 0.5]}, "scale"),
        ({"resize": "fit", "image_size": [32, 64], "scale": [1, 2]}, "scale"),
        ({"sliding_window": True}, "sliding_window"),
        ({"resize": "native", "cache": 64}, "cache"),
        ({"fraction": 0}, "fraction"),
        ({"resize": "squash"}, "resize"),
    ],
)
def test_options_that_do_not_go_together_are_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        config(**fields)


@pytest.mark.parametrize(
    ("task", "fields", "message"),
    [
        ("detection", {"resize": "crop"}, "d: resize: 'crop' is not for detection; use stretch or fit"),
        ("detection", {"resize": "native"}, "resize"),
        ("vqa", {"resize": "fit"}, "use stretch or crop"),
        ("classification", {"resize": "native"}, "resize"),
        ("segmentation", {"augment": "randaugment"}, "moves the image but not the segmentation labels"),
    ],
)
def test_a_task_that_cannot_be_fed_so_says_what_it_takes(task: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        config(**fields).check(task)
