"""CKA, Pearson correlation and mutual information: identities, hand-computed values, and what chance gives."""

from __future__ import annotations

import numpy as np
import pytest

from harness.analysis.information import information, mutual_information
from harness.analysis.projection import principal_components, umap
from harness.analysis.similarity import linear_cka, pearson

DRAW = np.random.default_rng(0)
X = DRAW.standard_normal((40, 6))
Y = DRAW.standard_normal((40, 3)) + X[:, :3]
ROTATION, _ = np.linalg.qr(DRAW.standard_normal((6, 6)))


@pytest.mark.parametrize("debiased", [False, True])
def test_cka_is_one_with_itself_and_does_not_see_rotation_scale_or_shift(debiased: bool) -> None:
    assert linear_cka(X, X, debiased) == pytest.approx(1)
    assert linear_cka(X, -3 * X @ ROTATION + 7, debiased) == pytest.approx(1)
    assert linear_cka(X, Y, debiased) == pytest.approx(linear_cka(X @ ROTATION, 5 * Y - 2, debiased))
    assert linear_cka(X, Y, debiased) == pytest.approx(linear_cka(Y, X, debiased))


def test_cka_equals_its_formula_on_three_samples() -> None:
    # Centred columns: x = (-1, 0, 1), y = (-1, 1, 0). <x, y>^2 / (<x, x> <y, y>) = 1 / 4; without centring 4 / 25.
    x, y = np.array([[0.0], [1], [2]]), np.array([[0.0], [2], [1]])
    assert linear_cka(x, y) == pytest.approx(0.25)
    assert linear_cka(x + 100, y - 50) == pytest.approx(0.25)


def test_cka_sees_a_change_of_scale_of_one_dimension() -> None:
    assert linear_cka(X, X * np.array([9.0, 1, 1, 1, 1, 1])) < 0.9  # type: ignore[operator]


def test_of_unrelated_wide_features_plain_cka_is_high_and_the_debiased_one_is_zero_on_average() -> None:
    pairs = [(DRAW.standard_normal((20, 200)), DRAW.standard_normal((20, 200))) for _ in range(50)]
    assert np.mean([linear_cka(x, y) for x, y in pairs]) > 0.8
    assert abs(np.mean([linear_cka(x, y, debiased=True) for x, y in pairs])) < 0.02


def test_what_does_not_vary_has_no_similarity() -> None:
    still = np.full((40, 6), 0.1)
    assert linear_cka(X, still) is None
    assert pearson(X, still) is None
    assert information(X, still, 0) is None
    assert linear_cka(X[:3], X[:3], debiased=True) is None


def test_pearson_is_the_mean_over_dimensions_and_sees_a_rotation() -> None:
    x = np.array([[0.0, 0], [1, 1], [2, 2]])
    y = np.array([[0.0, 2], [2, 1], [1, 0]])
    assert pearson(x, y) == pytest.approx((0.5 - 1) / 2)
    assert pearson(X, 2 * X + 1) == pytest.approx(1)
    assert abs(pearson(X, X @ ROTATION)) < 0.9  # type: ignore[arg-type]


def test_a_dimension_that_does_not_vary_has_no_part_in_pearson() -> None:
    x = np.array([[0.0, 3], [1, 3], [2, 3]])
    assert pearson(x, x) == pytest.approx(1)


def test_mutual_information_of_gaussians_is_that_of_their_correlation() -> None:
    draw = np.random.default_rng(1)
    x = draw.standard_normal((2000, 1))
    y = 0.9 * x + np.sqrt(1 - 0.81) * draw.standard_normal((2000, 1))
    assert mutual_information(x, y) == pytest.approx(-0.5 * np.log(1 - 0.81), abs=0.06)
    assert mutual_information(x, draw.standard_normal((2000, 1))) == pytest.approx(0, abs=0.05)


def test_mutual_information_sees_what_correlation_does_not() -> None:
    x = np.random.default_rng(2).uniform(-1, 1, (500, 1))
    assert abs(pearson(x, x**2) or 0) < 0.1
    assert mutual_information(x, x**2 + 1e-3 * np.random.default_rng(3).standard_normal((500, 1))) > 1


def test_outputs_that_go_together_are_told_from_chance() -> None:
    draw = np.random.default_rng(4)
    x = draw.standard_normal((150, 5))
    related = information(x, x @ draw.standard_normal((5, 3)), 0)
    unrelated = [information(x, draw.standard_normal((150, 3)), 0) for _ in range(4)]
    assert related is not None
    assert related["nats"] > related["null_high"]
    assert related["p_value"] == pytest.approx(1 / 201)
    assert sum(one["p_value"] > 0.05 for one in unrelated if one) >= 3
    assert all(abs(one["null_mean"]) < 0.1 for one in unrelated if one)
    assert information(x, x, 0) == information(x, x, 0)


def test_equal_outputs_of_many_images_do_not_stop_the_estimate() -> None:
    x = np.repeat(np.eye(3), 20, axis=0)
    found = information(x, x, 0)
    assert found is not None
    assert np.isfinite(found["nats"])


def test_principal_components_are_ordered_and_have_one_sign() -> None:
    points = np.array([[2.0, 0], [-2, 0], [0, 1], [0, -1]])
    coordinates, shares = principal_components(points)
    np.testing.assert_allclose(coordinates, points, atol=1e-12)
    assert shares == pytest.approx([0.8, 0.2])
    np.testing.assert_allclose(principal_components(-points)[0], -points, atol=1e-12)


def test_a_line_of_points_has_one_component() -> None:
    coordinates, shares = principal_components(np.outer([0.0, 1, 2], [1.0, 1]))
    np.testing.assert_allclose(coordinates[:, 1], 0)
    assert shares == pytest.approx([1, 0])


def test_umap_draws_the_same_picture_twice_where_it_is_installed() -> None:
    pytest.importorskip("umap")
    first, second = umap(X, 1), umap(X, 1)
    assert first is not None
    assert first.shape == (40, 2)
    assert np.array_equal(first, second)  # type: ignore[arg-type]
