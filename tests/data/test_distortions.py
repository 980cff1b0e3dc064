"""Glass and zoom blur, elastic transforms and frost: their definitions, and what their severities mean."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from harness.data.corruptions import distortion
from harness.data.corruptions.config import CARRYING, KINDS, SEVERITIES, USUAL, CorruptionsConfig
from harness.data.corruptions.frost import crystals, frost


def texture(height: int, width: int) -> Any:
    draw = np.random.default_rng(2)
    field = ndimage.gaussian_filter(draw.normal(size=(height, width, 3)), (3, 3, 0))
    return (128 + 100 * field / np.abs(field).max()).astype(np.uint8)


def stream(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def ramp(height: int, width: int) -> Any:
    """Every pixel's value is its column."""
    return np.broadcast_to(np.arange(width, dtype=np.uint8)[None, :, None], (height, width, 3))


@pytest.mark.parametrize(("reach", "factor"), [(1, 1.0), (4, 1.0), (3, 0.5)])
def test_glass_swaps_pixels_and_loses_none(reach: int, factor: float) -> None:
    """Swapping views of an array, as `a[i], a[j] = a[j], a[i]` does, would copy one pixel over the other."""
    before = stream(1).random((40, 50, 3), dtype=np.float32)
    after = before.copy()
    distortion._swap(after, reach, factor, stream())
    assert not np.array_equal(before, after)
    assert Counter(map(bytes, after.reshape(-1, 3))) == Counter(map(bytes, before.reshape(-1, 3)))


@pytest.mark.parametrize(("reach", "factor"), [(4, 1.0), (4, 0.5)])
def test_glass_moves_pixels_no_further_than_two_swaps_reach_on_average_the_factor_shorter(
    reach: int, factor: float
) -> None:
    columns = np.repeat(ramp(60, 80).astype(np.float32)[..., :1], 3, axis=2)
    after = columns.copy()
    distortion._swap(after, reach, factor, stream())
    way = np.abs(after - columns)[reach:-reach, reach:-reach]
    assert 1.5 * factor < way.mean() < 4 * factor  # a row by row order would carry some pixels over the whole image
    assert np.quantile(way, 0.999) <= 4 * reach * factor


def test_what_glass_leaves_of_detail_falls_with_every_severity() -> None:
    image = texture(240, 320)

    def detail(severity: int) -> float:
        return float(np.abs(np.diff(distortion.glass_blur(image, severity, stream()).astype(int), axis=1)).mean())

    left = [detail(severity) for severity in SEVERITIES]
    assert left == sorted(left, reverse=True)


def test_zoom_blur_is_the_mean_of_the_image_and_its_enlarged_middles() -> None:
    image = texture(60, 90)
    places = np.stack(np.indices((60, 90))).astype(float)
    middle = np.array([59 / 2, 89 / 2])[:, None, None]
    total = image.astype(float)
    for zoom in 1 + 0.02 * np.arange(11):  # severity 3: up to 1.2
        source = (places - middle) / zoom + middle
        total += np.stack([ndimage.map_coordinates(image[..., n].astype(float), source, order=1) for n in range(3)], -1)
    found = distortion.zoom_blur(image, 3, stream()).astype(float)
    assert np.abs(found - total / 12).max() < 0.6  # rounding; leaving the image itself out would be off by more


def test_zoom_blur_leaves_the_middle_and_moves_the_edge() -> None:
    image = texture(81, 81)
    way = np.abs(distortion.zoom_blur(image, 5, stream()).astype(int) - image).mean(2)
    assert way[38:43, 38:43].mean() < 0.5 * way[:10].mean()


@pytest.mark.parametrize("smooth", [0.7, 2.44, 19.5, 171.0])
def test_displacements_are_filtered_noise_however_wide_the_filter(smooth: float) -> None:
    found = distortion.displacements((50, 70), 30.0, smooth, stream(4))
    draw = stream(4)
    for one in found:
        noise = draw.uniform(-1, 1, (50, 70))
        expected = 30.0 * ndimage.gaussian_filter(noise, smooth, mode="reflect", truncate=3)
        assert np.allclose(one, expected, atol=1e-9)


@pytest.mark.parametrize("size", [(64, 64), (240, 320)])
def test_neighbours_are_torn_apart_more_with_every_severity_of_an_elastic_transform(size: tuple[int, int]) -> None:
    """Its mean change is no measure of severity: 1 and 2 move the whole image, and that further than 3 to 5 do."""
    image = np.zeros((*size, 3), np.uint8)

    def torn(severity: int) -> float:
        pull, smooth, _ = distortion._elastic(image, severity)
        return float(np.diff(distortion.displacements(size, pull, smooth, stream())[0], axis=0).std())

    found = [torn(severity) for severity in SEVERITIES]
    assert found == sorted(set(found))


def test_a_small_image_is_torn_as_the_large_one_and_its_corners_move_by_the_same_share() -> None:
    large, small = np.zeros((224, 224, 3), np.uint8), np.zeros((112, 112, 3), np.uint8)
    for severity in SEVERITIES:
        pull, smooth, corner = distortion._elastic(large, severity)
        half_pull, half_smooth, half_corner = distortion._elastic(small, severity)
        assert half_smooth == smooth / 2
        assert half_pull / half_smooth == pytest.approx(pull / smooth / 2)  # displacements are pull / smooth long
        assert half_corner == corner / 2


def test_the_first_severity_of_an_elastic_transform_keeps_lines_straight_and_the_last_does_not() -> None:
    def bend(severity: int) -> float:
        """How far what was a plane is from one."""
        found = distortion.elastic_transform(ramp(200, 200), severity, stream(5))[60:140, 60:140, 0].astype(float)
        plane = np.column_stack([np.ones(80 * 80), *(one.ravel() for one in np.indices((80, 80)))])
        residual = np.linalg.lstsq(plane, found.ravel(), rcond=None)[1]
        return float(np.sqrt(residual[0] / 80**2))

    assert bend(1) < 0.5  # rounding alone is 0.29
    assert bend(5) > 1


def test_an_elastic_transform_takes_pixels_from_where_corners_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """All corners 6 down and 9 to the right: what is seen at a place was 6 above and 9 to the left of it."""

    class Together(np.random.Generator):
        def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
            return np.broadcast_to([6.0, 9.0], size) if size == (3, 2) else np.zeros(size)

    image = texture(90, 120)
    found = distortion.elastic_transform(image, 1, Together(np.random.PCG64(0)))
    assert np.array_equal(found[6:, 9:], image[:-6, :-9])


def test_frost_is_what_its_formula_says_and_hides_more_with_every_severity() -> None:
    image = texture(70, 90)
    ice = crystals(70, 90, 0.5, stream(3))
    expected = 255 * np.clip(0.8 * image / 255 + 0.6 * ice, 0, 1)
    assert np.abs(frost(image, 2, stream(3)) - expected).max() <= 0.51
    alike = [np.corrcoef(frost(image, one, stream(3)).ravel(), image.ravel())[0, 1] for one in SEVERITIES]
    assert alike == sorted(set(alike), reverse=True)


def test_crystals_are_drawn_anew_for_every_stream_and_cover_the_pane() -> None:
    ice = crystals(100, 130, 1.0, stream(3))
    assert (ice.shape, ice.dtype) == ((100, 130, 3), np.float32)
    assert 0 <= ice.min() < ice.max() <= 1
    assert 0.25 < ice.mean() < 0.6
    assert np.array_equal(ice, crystals(100, 130, 1.0, stream(3)))
    assert not np.array_equal(ice, crystals(100, 130, 1.0, stream(4)))


def test_what_is_scored_by_default_is_what_it_was() -> None:
    assert USUAL == (
        "gaussian_noise", "shot_noise", "impulse_noise", "gaussian_blur", "motion_blur", "fog", "snow", "brightness",
        "contrast", "pixelate", "jpeg",
    )  # fmt: skip
    assert set(KINDS) - set(USUAL) == {"glass_blur", "zoom_blur", "frost", "elastic_transform"}


def test_what_carries_things_away_is_not_asked_of_tasks_with_places() -> None:
    both = CorruptionsConfig(kinds=("fog", "elastic_transform"))
    assert [both.on(task) for task in ("classification", "vqa")] == [both, both]
    for task in ("detection", "segmentation"):
        rest = both.on(task)
        assert rest is not None
        assert rest.kinds == ("fog",)
        assert CorruptionsConfig(kinds=CARRYING).on(task) is None
