"""The paper-scale baselines: valid, and their networks can be built; nothing is downloaded or trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.submission import load_submission

FILES = sorted((Path(__file__).parents[2] / "baselines" / "paper").glob("*.yaml"))
CLASSES = {"imagenet": 1000, "coco2017": 80, "cityscapes": 19, "vqa2": 3129}


@pytest.mark.parametrize("count", [0, 16])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_paper_scale_network_can_be_built_from_its_submission(file: Path, count: int) -> None:
    # Random weights: the pretrained ones need a network connection.
    changes = ["model.backbone.pretrained=false", f"model.placeholders.count={count}"]
    submission = load_submission(file, changes)
    cards = submission.cards()
    assert set(cards) == set(CLASSES)
    specs = {name: TaskSpec(card.task, CLASSES[name], 10_000 * (card.task == "vqa")) for name, card in cards.items()}
    with torch.device("meta"):
        network = MultiTaskNetwork(submission.model, specs)
    parts = network.parameters_by_part()
    assert 20e6 < parts["backbone"] < 100e6
    assert ("placeholders" in parts) == (count > 0)
    assert parts["head imagenet"] == 1000 * (network.shared.shape.pooled_width + 1)  # type: ignore[union-attr]


def test_there_is_one_with_a_resnet_and_one_with_a_transformer() -> None:
    assert {file.stem for file in FILES} == {"resnet50", "vit-b16"}
