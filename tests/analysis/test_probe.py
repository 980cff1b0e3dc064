"""What is kept of the maps that a task's path makes of an image."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.analysis import probe
from harness.data.batches import Batch
from harness.models.features import Features


def test_padding_has_no_part_in_the_means_of_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two images in a batch of 8 x 8 pixels: one fills it, the other its upper half. Positions are 4 pixels wide.
    sizes = torch.tensor([[8, 8], [4, 8]])
    batch = Batch(("1", "2"), torch.zeros(2, 3, 8, 8, dtype=torch.uint8), sizes, contents=sizes)
    level = torch.tensor([[1.0, 3.0], [5.0, 7.0]]).expand(2, 1, 2, 2)
    features = Features({4: level, 8: torch.full((2, 1, 1, 1), 9.0)}, torch.zeros(2, 3), None)
    done = probe.Pass(batch, features, (level,), None)
    monkeypatch.setattr(probe, "passes", lambda *_: iter([done]))
    monkeypatch.setattr(probe, "whole_images", lambda *_: None)
    monkeypatch.setattr(probe, "Pictures", lambda *_: None)
    adapter = SimpleNamespace(adapter=SimpleNamespace(task="segmentation"))
    run: Any = SimpleNamespace(data={"maps": adapter}, network=SimpleNamespace(reads=lambda _: "maps"))
    found = probe.probe(run, "maps", [])
    assert found.outputs.tolist() == [[4.0], [2.0]]
    assert found.features is not None
    assert found.features.tolist() == [[4.0, 9.0], [2.0, 9.0]]
