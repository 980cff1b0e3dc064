"""Sliding windows and the way back to original sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from harness.data.batches import SegmentationBatch
from harness.training.windows import slide, train_ids


@dataclass
class PerPixel:
    """A network without context: its logits are the pixel's three channels."""

    windows: list[tuple[int, int]]

    def predict(self, name: str, batch: SegmentationBatch) -> torch.Tensor:
        self.windows.append((batch.images.shape[-2], batch.images.shape[-1]))
        return batch.images.float()


def batch(height: int, width: int) -> SegmentationBatch:
    images = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return SegmentationBatch(
        ids=("a", "b"), images=images, sizes=torch.tensor([[height, width]] * 2), masks=torch.zeros(2, height, width)
    )


@pytest.mark.parametrize("size", [(64, 128), (65, 97), (30, 200), (64, 64), (20, 20)])
def test_windows_of_a_network_without_context_give_the_whole_image(size: tuple[int, int]) -> None:
    network: Any = PerPixel([])
    data = batch(*size)
    torch.testing.assert_close(slide(network, "s", data, (64, 64)), data.images.float())
    assert all(side % 32 == 0 and side <= 64 for window in network.windows for side in window)


def test_windows_overlap_by_a_third_and_the_last_one_ends_at_the_edge() -> None:
    network: Any = PerPixel([])
    slide(network, "s", batch(96, 192), (96, 96))
    assert len(network.windows) == 3  # from 0, 64 and 96
    network.windows.clear()
    slide(network, "s", batch(512, 1024), (256, 512))
    assert len(network.windows) == 3 * 3


def test_where_windows_overlap_their_logits_are_averaged() -> None:
    class Position:
        """Logits that count the windows seen so far: 0, 1, 2."""

        seen = -1

        def predict(self, name: str, batch: SegmentationBatch) -> torch.Tensor:
            self.seen += 1
            return torch.full((2, 1, 32, 32), float(self.seen))

    network: Any = Position()
    found = slide(network, "s", batch(32, 64), (32, 32))[0, 0, 0]
    # Windows begin at 0, 21 and 32.
    expected = torch.cat([torch.zeros(21), torch.full((11,), 0.5), torch.full((21,), 1.5), torch.full((11,), 2.0)])
    torch.testing.assert_close(found, expected)


def test_padding_is_cut_off_before_the_label_map_gets_its_original_size() -> None:
    logits = torch.zeros(1, 2, 32, 64)
    logits[0, 1, :, 32:] = 1  # class 1 in the padding
    (mask,) = train_ids(logits, torch.tensor([[10, 20]]), torch.tensor([[32, 32]]))
    assert mask.shape == (10, 20)
    assert mask.dtype == torch.uint8
    assert (mask == 0).all()


def test_label_maps_are_resized_as_logits_not_as_classes() -> None:
    logits = torch.randn(1, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    (mask,) = train_ids(logits, torch.tensor([[20, 12]]), None)
    reference = F.interpolate(logits, (20, 12), mode="bilinear", align_corners=False)[0].argmax(0)
    assert torch.equal(mask.long(), reference)
