"""Corrupted images: the definitions by hand, the same for an image on every occasion, and nothing but the image."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from harness.cards import load_card
from harness.data import open_split
from harness.data.config import TaskConfig
from harness.data.corruptions import weather
from harness.data.corruptions.apply import CORRUPTIONS, Corruption
from harness.data.corruptions.blur import moved
from harness.data.corruptions.config import KINDS, SEVERITIES, USUAL, CorruptionsConfig
from harness.data.corruptions.pixels import length_factor
from harness.data.image_cache import image_cache
from harness.data.loading import EvaluationOrder, TaskData, loader
from harness.errors import HarnessError
from harness.progress import Reporter
from harness.training.config import EvaluationConfig

QUIET = Reporter(quiet=True)
SUITE = ["shapes-classification", "shapes-detection", "shapes-segmentation", "shapes-vqa"]


def corrupt(image: Any, kind: Any, severity: int, name: str = "a") -> Any:
    return Corruption(kind, severity)(np.asarray(image, dtype=np.uint8), "card", name)


def photograph(height: int = 64, width: int = 96) -> Any:
    """Smooth colours with edges and texture, neither black nor white nor grey all over."""
    draw = np.random.default_rng(7)
    field = ndimage.gaussian_filter(draw.normal(size=(height, width, 3)), (6, 6, 0))
    field = field / np.abs(field).max() + 0.3 * (np.indices((height, width)).sum(0) // 16 % 2)[:, :, None]
    return (90 + 70 * field).clip(5, 250).astype(np.uint8)


def test_every_kind_that_can_be_named_has_a_definition() -> None:
    assert tuple(CORRUPTIONS) == KINDS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(64, 96), (7, 5), (1, 1), (300, 230)])
def test_an_image_keeps_its_type_and_size_and_is_not_written_into(kind: Any, shape: tuple[int, int]) -> None:
    image = photograph(*shape)
    before = image.copy()
    for severity in (1, 5):
        found = corrupt(image, kind, severity)
        assert (found.shape, found.dtype) == (image.shape, np.uint8)
    assert np.array_equal(image, before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(64, 64), (240, 320)])
def test_the_mean_change_grows_with_severity(kind: Any, size: tuple[int, int]) -> None:
    image = photograph(*size)

    def change(severity: int) -> float:
        names = [str(number) for number in range(6)]
        return float(np.mean([np.abs(corrupt(image, kind, severity, n).astype(int) - image).mean() for n in names]))

    changes = [change(severity) for severity in SEVERITIES]
    assert changes[0] > 0
    if kind in ("fog", "snow", "glass_blur", "frost"):  # whose grain changes, too: not every step changes more
        assert changes[4] > changes[0]
    elif kind == "elastic_transform":  # whose first two stretch the whole image and whose last three pull at its parts
        assert changes[0] < changes[1]
        assert changes[2] < changes[3] < changes[4]
    else:
        assert changes == sorted(set(changes))


def test_brightness_is_added_to_the_value_and_keeps_hue_and_saturation() -> None:
    # 0.8 of full light becomes 1.0: all channels times 1.25. Adding 51 to each would give 255, 153, 51.
    assert corrupt([[[204, 102, 0]]], "brightness", 2).tolist() == [[[255, 128, 0]]]
    assert corrupt([[[100, 50, 25]]], "brightness", 1).tolist() == [[[126, 63, 31]]]  # 100 + 25.5, all times 1.255
    assert corrupt([[[0, 0, 0]]], "brightness", 2).tolist() == [[[51, 51, 51]]]
    assert corrupt([[[255, 10, 10]]], "brightness", 5).tolist() == [[[255, 10, 10]]]  # there is nothing to be added


def test_contrast_shrinks_each_channel_towards_its_own_mean() -> None:
    # means 100, 50, 200; severity 1 keeps 0.4: 100 ± 40, 50 ± 20, 200 ± 0. Torchvision's blends with the mean of grey.
    image = [[[0, 0, 200], [200, 100, 200]]]
    assert corrupt(image, "contrast", 1).tolist() == [[[60, 30, 200], [140, 70, 200]]]
    assert corrupt(image, "contrast", 4).tolist() == [[[90, 45, 200], [110, 55, 200]]]


def test_what_has_nothing_to_lose_stays_as_it_is() -> None:
    flat = np.full((40, 40, 3), (120, 7, 255), dtype=np.uint8)
    for kind in (
        "contrast",
        "pixelate",
        "gaussian_blur",
        "motion_blur",
        "glass_blur",
        "zoom_blur",
        "elastic_transform",
    ):
        for severity in SEVERITIES:
            assert np.array_equal(corrupt(flat, kind, severity), flat), kind


def test_gaussian_noise_has_the_stated_deviation_and_no_mean() -> None:
    grey = np.full((300, 300, 3), 128, dtype=np.uint8)
    noise = corrupt(grey, "gaussian_noise", 1).astype(float) - 128
    assert noise.std() == pytest.approx(0.08 * 255, rel=0.02)
    assert abs(noise.mean()) < 0.2  # cutting off instead of rounding would make it half a level darker
    assert np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1] == pytest.approx(0, abs=0.02)


def test_shot_noise_varies_with_the_light() -> None:
    image = np.zeros((200, 200, 3), dtype=np.uint8)
    image[100:] = 51  # a fifth of full light: 12 of 60 photons
    found = corrupt(image, "shot_noise", 1).astype(float)
    assert (found[:100] == 0).all()
    assert found[100:].std() == pytest.approx(255 * np.sqrt(0.2 / 60), rel=0.03)


def test_impulse_noise_hits_the_stated_share_of_values_half_of_them_white() -> None:
    found = corrupt(np.full((300, 300, 3), 100), "impulse_noise", 5)
    assert (found != 100).mean() == pytest.approx(0.27, abs=0.005)
    assert (found == 255).mean() == pytest.approx(0.135, abs=0.005)
    assert set(np.unique(found)) == {0, 100, 255}


def test_a_blur_spreads_a_point_as_a_gaussian_of_the_stated_width() -> None:
    image = np.zeros((224, 224, 3), dtype=np.uint8)
    image[112, 112] = 255
    row = corrupt(image, "gaussian_blur", 1)[112, :, 0].astype(int)
    # 255 g(0)² = 40.6, 255 g(0) g(1) = 24.6, 255 g(0) g(2) = 5.5 with the normal density g of deviation 1
    assert row[110:115].tolist() == [5, 25, 41, 25, 5]


def test_lengths_shrink_with_small_images_down_to_half_and_do_not_grow_with_large_ones() -> None:
    sizes = [(224, 500), (168, 300), (64, 64), (1024, 2048)]
    assert [length_factor(np.zeros((*size, 3), np.uint8)) for size in sizes] == [1.0, 0.75, 0.5, 1.0]


def test_motion_goes_one_way_with_falling_weights_that_sum_to_one() -> None:
    line = np.zeros((1, 9))
    line[0, 4] = 1
    weights = np.exp([-2, -0.5, 0]) / np.exp([-2, -0.5, 0]).sum()  # three pixels
    assert moved(line, 1, 1.0, 0.0)[0].tolist() == pytest.approx([0, 0, *weights, 0, 0, 0, 0])
    assert moved(line.T, 1, 1.0, 90.0)[:, 0].tolist() == pytest.approx([0, 0, *weights, 0, 0, 0, 0])
    line[0, 8] = 1
    assert moved(line, 1, 1.0, 0.0)[0, 8] == pytest.approx(1)  # what lies outside is like the edge


def test_fog_is_what_its_formula_says() -> None:
    image = photograph()
    found = weather.fog(image, 1, np.random.default_rng(3))
    cloud = weather.plasma(128, 2.0, np.random.default_rng(3))[:64, :96, None]  # the next power of two of 96
    assert 0 <= cloud.min() < cloud.max() <= 1
    largest = image.max() / 255
    expected = 255 * (image / 255 + 1.5 * cloud) * largest / (largest + 1.5)
    assert np.abs(found - expected).max() <= 0.51


def test_pixelated_images_have_blocks_of_box_means() -> None:
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    image[:4, :4] = 200
    image[0, 0] = 104
    found = corrupt(image, "pixelate", 5)  # a quarter of the side: blocks of 4 x 4
    assert (found[:4, :4] == 194).all()  # (15 * 200 + 104) / 16; taking one pixel of each block would give 200
    assert not found[4:].any()


def test_draws_depend_on_card_image_kind_and_severity_and_on_nothing_else() -> None:
    image = photograph()
    first = Corruption("gaussian_noise", 2)(image, "card", "a")
    np.random.default_rng(5)
    torch.manual_seed(9)
    assert np.array_equal(first, Corruption("gaussian_noise", 2)(image, "card", "a"))
    for other in (("card", "b"), ("other", "a")):
        assert not np.array_equal(first, Corruption("gaussian_noise", 2)(image, *other))
    code = (
        f"import sys, hashlib; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_corruptions import corrupt, photograph, KINDS\n"
        "print(hashlib.sha256(b''.join(corrupt(photograph(), kind, 3).tobytes() for kind in KINDS)).hexdigest())"
    )
    here = hashlib.sha256(b"".join(corrupt(photograph(), kind, 3).tobytes() for kind in KINDS)).hexdigest()
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert there == here


def data(name: str, workers: int = 0, **config: Any) -> TaskData:
    adapter = open_split(load_card(name), "test", 6)
    task = TaskConfig.model_validate({"dataset": name, "batch_size": 4, "image_size": 48} | config)
    words = getattr(adapter, "question_vocabulary", ())
    cache = image_cache(adapter, task.cache, QUIET, workers) if task.cache is not None else None
    return TaskData(adapter, task, False, 0, words, cache=cache)


def rows(data: TaskData, batch_size: int, workers: int = 0) -> dict[str, torch.Tensor]:
    batches = loader(data, EvaluationOrder(len(data), batch_size), workers)
    return {name: image for batch in batches for name, image in zip(batch.ids, batch.images, strict=True)}


@pytest.mark.usefixtures("tiny_suite")
def test_corrupted_pixels_do_not_depend_on_batch_size_or_loader_processes() -> None:
    corrupted = data("shapes-classification").corrupted(Corruption("snow", 3))
    whole = rows(corrupted, 6)
    for other in (rows(corrupted, 1), rows(corrupted, 4), rows(corrupted, 2, workers=1)):
        assert other.keys() == whole.keys()
        assert all(torch.equal(image, whole[name]) for name, image in other.items())


@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize("name", SUITE)
@pytest.mark.parametrize("cache", [None, 48, 32])
def test_everything_but_the_image_stays_as_it_is(name: str, cache: int | None) -> None:
    clean = data(name, cache=cache)
    places = [(-1, index) for index in range(4)]
    one, other = clean.batch(places), clean.corrupted(Corruption("contrast", 5)).batch(places)
    assert not torch.equal(one.images, other.images)
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name != "images":
            assert repr(a) == repr(b), field.name


@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize("name", SUITE)
def test_corrupted_images_go_the_way_of_cached_ones_beside_the_cache(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CORRUPTIONS, "fog", lambda image, severity, draw: image)  # a corruption that changes nothing
    for config in ({}, {"cache": 48}, {"cache": 32}, {"cache": 32, "interpolation": "bilinear"}):
        clean = data(name, **config)
        same = rows(clean.corrupted(Corruption("fog", 1)), 3)
        assert all(torch.equal(image, same[key]) for key, image in rows(clean, 3).items()), config


@pytest.mark.usefixtures("tiny_suite")
def test_corrupted_images_are_never_taken_for_the_steady_ones_whose_features_are_kept() -> None:
    clean = data("shapes-classification")
    assert clean.steady
    assert not clean.corrupted(Corruption("fog", 1)).steady
    assert clean.steady  # the original is another object


@pytest.mark.usefixtures("tiny_suite")
def test_some_training_images_are_chosen_by_the_seed_from_what_is_trained_on_without_augmentation() -> None:
    adapter = open_split(load_card("shapes-classification"), "train")
    config = TaskConfig(dataset="shapes-classification", batch_size=4, image_size=(64, 64), flip=1.0, fraction=0.5)
    train = TaskData(adapter, config, True, 0)
    chosen = train.picked(5)
    assert len(chosen) == 5
    assert set(chosen.names) < set(train.names)
    assert chosen.names == train.picked(5).names != TaskData(adapter, config, True, 1).picked(5).names
    assert chosen.names != train.names[:5]  # the first ones are of one class
    plain = torch.from_numpy(adapter[int(chosen.rows[0])].image).permute(2, 0, 1)  # type: ignore[index]
    assert torch.equal(chosen.batch([(-1, 0)]).images[0], plain)  # although training flips every image
    assert len(train.picked(1000)) == len(train)


def test_kinds_and_severities_have_one_order_and_wrong_ones_are_refused_with_what_is_right() -> None:
    config = CorruptionsConfig(kinds=("jpeg", "fog"), severities=(5, 1))
    assert (config.kinds, config.severities) == (("fog", "jpeg"), (1, 5))
    assert CorruptionsConfig().kinds == USUAL
    assert CorruptionsConfig.model_validate({"kinds": "all"}).kinds == KINDS
    for wrong, word in (
        ({"kinds": ["defocus_blur"]}, "fog"),
        ({"kinds": "most"}, "tuple"),
        ({"kinds": ["fog", "fog"]}, "twice"),
        ({"kinds": []}, "at least 1"),
        ({"severities": [0, 1]}, "from 1 to 5"),
        ({"severities": [2, 2]}, "different"),
    ):
        with pytest.raises((ValueError, HarnessError), match=word):
            EvaluationConfig.model_validate({"corruptions": wrong})
