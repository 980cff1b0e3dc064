"""What classes are called in the prompts of a zero-shot head."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests_support import document
from timm.data.imagenet_info import ImageNetInfo

from harness.cards import DatasetCard, load_card
from harness.models.class_names import class_names
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.submission import Submission


def card(**fields: Any) -> DatasetCard:
    known = load_card("shapes-classification").model_dump(mode="json", exclude_defaults=True)
    return DatasetCard.model_validate(known | fields)


def test_folders_are_called_by_their_names_with_spaces() -> None:
    assert class_names(card(), ["red_fox", " owl_"]) == ("red fox", "owl")


def test_a_card_says_what_its_classes_are_called() -> None:
    assert class_names(card(display_names={"c0": "crane bird"}), ["c0", "c_1"]) == ("crane bird", "c 1")


@pytest.mark.parametrize("name", ["imagenet", "imagenet-devkit", "imagenet-mini"])
def test_wnids_are_called_by_clips_names_whichever_of_them_there_are(name: str) -> None:
    some = ["n01440764", "n02012849", "n03126707", "n02119022"]
    assert class_names(load_card(name), some) == ("tench", "crane bird", "construction crane", "red fox")


def test_clips_names_stand_in_the_order_of_the_wnids() -> None:
    """Most names also stand in timm's description of the same wnid, and few in that of the next."""
    info = ImageNetInfo()
    names = class_names(load_card("imagenet"), info.label_names())
    together = [
        name.lower() in info.index_to_description(index).lower() or info.index_to_description(index).lower() in name
        for index, name in enumerate(names)
    ]
    shifted = [
        name.lower() in info.index_to_description((index + 1) % 1000).lower() for index, name in enumerate(names)
    ]
    assert sum(together) > 700 > 50 > sum(shifted)


def test_prompts_are_made_of_display_names(monkeypatch: pytest.MonkeyPatch) -> None:
    model = document(0)["model"]
    tower = {"layers": 2, "width": 64, "head_width": 32, "image_size": 64}
    words = {"layers": 2, "width": 64, "heads": 2}
    model["backbone"] = {
        "library": "open_clip",
        "name": "ViT-S-16",
        "options": {"embed_dim": 24, "vision_cfg": tower, "text_cfg": words},
    }
    model["heads"] = {"classification": {"name": "zero_shot", "templates": ["a photo of a {}."]}}
    network = MultiTaskNetwork(
        Submission.model_validate(document(0) | {"model": model}).model,
        {"c": TaskSpec("classification", 2, names=("tench", "owl"))},
    )
    asked: list[str] = []
    assert network.clip_text is not None
    embed = network.clip_text.embed
    monkeypatch.setattr(network.clip_text, "embed", lambda texts: (asked.extend(texts), embed(texts))[1])
    network.eval()
    with torch.no_grad():
        network.prepare("c")
    assert asked == ["a photo of a tench.", "a photo of a owl."]
