"""How images are resized: as the backbone's weights were trained, or as the submission says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tests_support import document
from torchvision.transforms.v2 import functional

from harness.cards import load_card
from harness.data import open_split
from harness.data.config import TaskConfig
from harness.data.image_cache import image_cache
from harness.data.transforms import Transform
from harness.models.backbones.interpolation import native_interpolation
from harness.models.config import BackboneConfig
from harness.progress import Reporter
from harness.submission import load_submission

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.integers(0, 256, (40, 60, 3)).astype(np.uint8)
RECIPES: list[dict[str, Any]] = [
    {"resize": "stretch"},
    {"resize": "crop"},
    {"resize": "fit"},
    {"resize": "stretch", "crop": 0.3},
]


def transform(training: bool, **fields: Any) -> Transform:
    return Transform(TaskConfig.model_validate({"dataset": "d", "batch_size": 1, "image_size": 32} | fields), training)


@pytest.mark.parametrize(("library", "name", "says"), [
    ("timm", "resnet50.tv_in1k", "bilinear"),
    ("timm", "resnet50.a1_in1k", "bicubic"),
    ("timm", "vit_base_patch16_224.augreg_in21k", "bicubic"),
    ("timm", "no_such_model", "bilinear"),
    ("torchvision", "resnet50", "bilinear"),
    ("torchvision", "swin_t", "bicubic"),
    ("torchvision", "swin_t.NO_SUCH_TAG", "bilinear"),
    ("torchvision", "no_such_model", "bilinear"),
    ("open_clip", "ViT-B-32.openai", "bicubic"),
    ("open_clip", "no_such_model", "bicubic"),
])  # fmt: skip
def test_weights_say_how_their_images_were_resized(library: str, name: str, says: str) -> None:
    asked = {"library": library, "name": name}
    assert native_interpolation(BackboneConfig.model_validate(asked | {"pretrained": True})) == says
    assert native_interpolation(BackboneConfig.model_validate(asked)) == "bilinear"


def test_a_submission_that_is_read_says_it_for_every_task(tmp_path: Path) -> None:
    content = document(0)
    content["tasks"][1]["interpolation"] = "bilinear"
    content["model"]["backbone"] = {"library": "torchvision", "name": "swin_t", "pretrained": True}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(content))
    found = load_submission(tmp_path / "a.yaml")
    assert [task.interpolation for task in found.tasks] == ["bicubic", "bilinear", "bicubic", "bicubic"]
    assert found.tasks[0].preprocessing()["interpolation"] == "bicubic, antialiased"
    plain = load_submission(tmp_path / "a.yaml", ["model.backbone.pretrained=false"])
    assert {task.interpolation for task in plain.tasks} == {"bilinear"}


def test_the_fingerprint_tells_bicubic_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(document(0)))
    prints = [
        load_submission(tmp_path / "a.yaml", [f"tasks.0.interpolation={mode}"]).fingerprint()
        for mode in ("auto", "bilinear", "bicubic")
    ]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_that_resizes_does_it_as_asked(recipe: dict[str, Any]) -> None:
    training = "crop" in recipe
    found = {
        mode: transform(training, **recipe, interpolation=mode)(IMAGE, (0,))["image"]
        for mode in ("bilinear", "bicubic")
    }
    assert not torch.equal(found["bilinear"], found["bicubic"])
    if recipe == {"resize": "stretch"}:
        reference = np.asarray(Image.fromarray(IMAGE).resize((32, 32), Image.Resampling.BICUBIC)).astype(int)
        assert np.abs(found["bicubic"].permute(1, 2, 0).numpy().astype(int) - reference).max() <= 1


@pytest.mark.parametrize("recipe", [{"resize": "native", "scale": [0.5, 0.6]}, {"resize": "fit"}])
def test_masks_are_resized_to_the_nearest_id_whatever_images_are(recipe: dict[str, Any]) -> None:
    mask = RANDOM.choice([0, 7, 200], (40, 60)).astype(np.uint8)
    for mode in ("bilinear", "bicubic"):
        out = transform("scale" in recipe, **recipe, interpolation=mode)(IMAGE, (0,), mask=mask)
        assert set(out["mask"].unique().tolist()) <= {0, 7, 200}


@pytest.mark.usefixtures("tiny_suite")
def test_a_cache_is_filed_under_how_its_images_were_resized() -> None:
    adapter = open_split(load_card("shapes-classification"), "train")
    caches = {mode: image_cache(adapter, (24, 24), Reporter(quiet=True), 0, mode) for mode in ("bilinear", "bicubic")}
    image = torch.from_numpy(np.array(adapter[0].image)).permute(2, 0, 1)
    for mode, cache in caches.items():
        expected = functional.resize(image, [24, 24], mode, antialias=True)
        assert np.array_equal(cache.images[0], expected.numpy())
