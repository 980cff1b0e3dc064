"""Greedy k-center."""

from __future__ import annotations

import torch

from harness.training.placeholders.k_center import k_center


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


def test_each_choice_is_the_farthest_from_all_centres_so_far_labelled_ones_included() -> None:
    candidates = column(1, 4, 10, 6.5)
    # Distances to the labelled image at 0 are 1, 4, 10, 6.5; with 10 chosen they are 1, 4, -, 3.5; then -, -, 2.5.
    assert k_center(candidates, column(0), 4) == [2, 1, 3, 0]
    # With a labelled image at 10, too, 10 comes last. Whoever forgets the labelled ones begins with it.
    assert k_center(candidates, column(0, 10), 4) == [1, 3, 0, 2]


def test_equally_far_candidates_are_taken_in_their_order_and_none_twice() -> None:
    assert k_center(column(5, -5, 5, -5), column(0), 4) == [0, 1, 2, 3]
    assert k_center(column(2, 2, 2), column(2), 3) == [0, 1, 2]


def test_many_centres_are_seen_in_parts_like_few() -> None:
    generator = torch.Generator().manual_seed(0)
    candidates, centres = (torch.randn(count, 4, generator=generator) for count in (50, 700))
    nearest = (candidates[:, None] - centres).norm(dim=-1).amin(1)
    assert k_center(candidates, centres, 1) == [int(nearest.argmax())]
