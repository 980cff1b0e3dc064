"""What two views' outputs cost: hand-computed numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from harness.data.batches import Batch
from harness.training.placeholders.consistency import divergence, places, pseudo_labels, soft_labels


def logits(*probabilities: tuple[float, ...]) -> Tensor:
    """float [1, C, N]: a softmax gives back these probabilities, one tuple for each place."""
    return torch.tensor(probabilities).log().T[None]


def odds(*probabilities: float) -> Tensor:
    """float [1, C, 1]: sigmoids give back these probabilities."""
    return torch.logit(torch.tensor(probabilities))[None, :, None]


ALL = torch.ones(1, 2, dtype=torch.bool)
ONE = torch.ones(1, 1, dtype=torch.bool)


def test_a_pseudo_label_weighs_by_its_probability_and_places_below_the_threshold_count_in_the_mean() -> None:
    weak, strong = logits((0.97, 0.03), (0.4, 0.6)), logits((0.5, 0.5), (0.9, 0.1))
    loss, kept = pseudo_labels(weak, strong, ALL, exclusive=True, threshold=0.95)
    assert float(loss) == pytest.approx(0.97 * math.log(2) / 2, rel=1e-5)  # not log(2) / 2, and not over the kept one
    assert float(kept) == 0.5


def test_with_sigmoids_every_class_is_a_decision_of_its_own_and_being_absent_is_one() -> None:
    weak, strong = odds(0.96, 0.02, 0.5), odds(0.5, 0.25, 0.9)
    loss, kept = pseudo_labels(weak, strong, ONE, exclusive=False, threshold=0.95)
    assert float(loss) == pytest.approx(0.96 * math.log(2) + 0.98 * -math.log(0.75), rel=1e-5)
    assert float(kept) == pytest.approx(2 / 3)


def test_soft_labels_are_softened_on_both_sides_and_multiplied_by_the_square_of_the_temperature() -> None:
    weak, strong = logits((0.98, 0.02)), logits((0.5, 0.5))
    first = 7 / 8  # a softmax of log(0.98) / 2 and log(0.02) / 2: roots, normalised
    expected = 0.98 * 4 * (first * math.log(2 * first) + (1 - first) * math.log(2 * (1 - first)))
    loss, kept = soft_labels(weak, strong, ONE, exclusive=True, threshold=0.95, temperature=2.0)
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    assert float(kept) == 1
    two = torch.stack([odds(0.98)[0, 0], odds(0.02)[0, 0]])[None]  # one sigmoid is a softmax of two logits, z and 0
    loss, _ = soft_labels(two[:, :1], odds(0.5), ONE, exclusive=False, threshold=0.95, temperature=2.0)
    assert float(loss) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("exclusive", [True, False])
def test_equal_views_cost_nothing_where_distributions_are_compared(exclusive: bool) -> None:
    torch.manual_seed(0)
    one = 5 * torch.randn(3, 4, 6)
    valid = torch.ones(3, 6, dtype=torch.bool)
    assert float(soft_labels(one, one, valid, exclusive, 0.5, 2.0)[0]) == pytest.approx(0, abs=1e-5)
    assert divergence(one, one, valid, exclusive).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    other = 5 * torch.randn(3, 4, 6)
    assert (divergence(one, other, valid, exclusive) > 1).all()


def test_divergence_is_from_the_clean_view_to_the_changed_one() -> None:
    clean, changed = logits((0.5, 0.5)), logits((0.9, 0.1))
    expected = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)  # 0.51; the other way round 0.37
    assert float(divergence(clean, changed, ONE, True)) == pytest.approx(expected, rel=1e-5)


def test_no_gradient_goes_through_the_weak_view() -> None:
    weak, strong = (torch.randn(2, 3, 4, requires_grad=True) for _ in range(2))
    valid = torch.ones(2, 4, dtype=torch.bool)
    for exclusive in (True, False):
        loss = (
            pseudo_labels(weak, strong, valid, exclusive, 0.5)[0]
            + soft_labels(weak, strong, valid, exclusive, 0.5, 2)[0]
        )
        (loss + divergence(weak, strong, valid, exclusive).sum()).backward()
    assert weak.grad is None
    assert strong.grad is not None


def test_padding_is_left_out_of_the_mean_of_its_image_and_images_weigh_alike() -> None:
    images = torch.zeros(2, 3, 32, 64, dtype=torch.uint8)
    batch = Batch(("a", "b"), images, torch.tensor([[32, 64]] * 2), contents=torch.tensor([[32, 64], [32, 32]]))
    weak = torch.zeros(2, 2, 1, 2)
    weak[:, 0] = 20.0  # certain of class 0 everywhere
    strong = torch.zeros(2, 2, 1, 2)
    strong[1, 1, 0, 1] = 50.0  # far off in the padding of the second image
    strong[0, 1, 0, 1] = 50.0
    logits_weak, valid = places((weak, weak), batch)
    logits_strong, _ = places((strong, strong), batch)
    assert valid.tolist() == [[True, True, True, True], [True, False, True, False]]
    loss, _ = pseudo_labels(logits_weak, logits_strong, valid, True, 0.95)
    assert float(loss) == pytest.approx(((math.log(2) + 50) / 2 + math.log(2)) / 2, rel=1e-5)
