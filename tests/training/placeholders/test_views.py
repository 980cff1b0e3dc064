"""Second views: what they change, what they leave, and what they depend on."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from harness.data.batches import Batch
from harness.data.collation import enlarge
from harness.data.transforms import derive_seed
from harness.training.placeholders.views import FACTORS, content, direction, scaled, strong


def batch(count: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 48), dtype=torch.uint8, generator=generator)
    return Batch(tuple("abcdefgh"[:count]), images, torch.tensor([[32, 48]] * count))


def test_colours_change_as_torchvision_changes_them_and_a_grey_square_is_cut_out() -> None:
    one = batch(8)
    found = strong(one, 0, 5)
    assert found.dtype == torch.uint8
    shares = []
    for name, image, other in zip(one.ids, one.images, found, strict=True):
        draw = random.Random(derive_seed("strong", 0, 5, name))
        brightness, contrast, saturation = (draw.uniform(*FACTORS) for _ in range(3))
        expected = tv.adjust_brightness(image / 255, brightness)
        expected = tv.adjust_saturation(tv.adjust_contrast(expected, contrast), saturation)
        grey = (other == 128).all(0)
        rows, columns = grey.any(1).nonzero()[:, 0], grey.any(0).nonzero()[:, 0]
        if len(rows):
            inside = grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert inside.float().mean() > 0.9  # a rectangle, but for pixels that are grey by chance
            assert max(len(rows), len(columns)) <= 17
        shares.append(float(grey.float().mean()))
        apart = ((expected * 255).round() - other).abs().amax(0)[~grey]
        assert apart.max() <= 1
    assert max(shares) > 0.02
    assert len(set(shares)) > 4


def test_a_view_follows_from_seed_step_and_id_and_from_nothing_else_in_the_batch() -> None:
    whole = batch()
    found = strong(whole, 0, 5)
    torch.rand(3)
    assert torch.equal(found[1:2], strong(whole.rows(1, 2), 0, 5))
    assert torch.equal(direction(whole, 0, 5)[1:2], direction(whole.rows(1, 2), 0, 5))
    for key in ((1, 5), (0, 6)):
        assert not torch.equal(found, strong(whole, *key))
        assert not torch.equal(direction(whole, 0, 5), direction(whole, *key))
    renamed = replace(whole, ids=("x", "b", "c"))
    assert [bool((a == b).all()) for a, b in zip(found, strong(renamed, 0, 5), strict=True)] == [False, True, True]


def test_padding_has_no_part_in_an_image_s_view() -> None:
    whole = batch()
    padded = enlarge(whole, (64, 64))
    assert torch.equal(strong(padded, 0, 5)[..., :32, :48], strong(whole, 0, 5))
    assert content(padded).sum() == 3 * 32 * 48


def test_directions_have_root_mean_square_1_over_what_is_no_padding() -> None:
    padded = enlarge(batch(), (64, 64))
    found = direction(padded, 0, 5)
    assert (found[..., 32:, :] == 0).all()
    assert found[..., :32, :48].square().mean((1, 2, 3)).tolist() == pytest.approx([1.0] * 3, rel=1e-5)
    tiny = scaled(1e-30 * found, padded)  # the square of this is 0 in float32
    torch.testing.assert_close(tiny, found, rtol=1e-4, atol=1e-5)
    assert (scaled(torch.zeros_like(found), padded) == 0).all()
