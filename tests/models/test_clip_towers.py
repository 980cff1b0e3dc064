"""CLIP's two towers are of one model: drawn once, loaded once, and said nothing about."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import orjson
import pytest
import torch
from safetensors.torch import save_file
from tests_support import batches, document
from torch import Tensor

from harness.models import network as network_module
from harness.models.backbones import open_clip_models
from harness.models.config import ModelConfig
from harness.models.network import MultiTaskNetwork, TaskSpec

SIZES = {"embed_dim": 24, "text_cfg": {"width": 32, "heads": 2, "layers": 2}}
TOWERS: dict[str, dict[str, Any]] = {
    "ViT-S-16": {"layers": 2, "width": 32, "head_width": 16, "image_size": 64},
    "RN50": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64},
    "convnext_base": {"timm_model_name": "test_convnext", "image_size": 64},
}
TEXTS = ["what is red", "is it a star", "how many blue circles are there"]


def description(name: str) -> dict[str, Any]:
    found: dict[str, Any] = open_clip.get_model_config(name)
    found["embed_dim"] = SIZES["embed_dim"]
    found["vision_cfg"] |= TOWERS[name]
    found["text_cfg"] |= SIZES["text_cfg"]
    return found


def folder(path: Path, name: str, weights: dict[str, Tensor] | None = None) -> str:
    """A model's description (names of other models cannot be handed over as options), with or without its weights."""
    path.mkdir()
    (path / "open_clip_config.json").write_bytes(orjson.dumps({"model_cfg": description(name), "preprocess_cfg": {}}))
    save_file({key: value.contiguous() for key, value in (weights or {}).items()}, path / "model.safetensors")
    return f"local-dir:{path}"


def own(name: str, seed: int = 3) -> Any:
    config = description(name)
    torch.manual_seed(seed)
    logging.disable(logging.WARNING)
    try:
        return open_clip.create_model(name, **{k: v for k, v in config.items() if k != "custom_text"}).eval()
    finally:
        logging.disable(logging.NOTSET)


def built(name: str, seed: int = 3, zero_shot: bool = True, tasks: str = "cv", **backbone: Any) -> MultiTaskNetwork:
    model = document(0)["model"]
    vision = {key: value for key, value in TOWERS[name].items() if key != "timm_model_name"}
    options = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": SIZES["text_cfg"]}
    model["backbone"] = {"library": "open_clip", "name": name} | (backbone or {"options": options})
    model["text"] = {"library": "open_clip"}
    if zero_shot:
        model["heads"]["classification"] = {"name": "zero_shot"}
    specs = {
        "c": TaskSpec("classification", 3, names=("star", "ring", "box")),
        "v": TaskSpec("vqa", 7, words=10),
    }
    torch.manual_seed(seed)
    return MultiTaskNetwork(ModelConfig.model_validate(model), {key: specs[key] for key in tasks}).eval()


def towers_agree(net: MultiTaskNetwork, model: Any) -> None:
    images = batches()["c"].images
    backbone: Any = net.shared.trunk.backbone  # type: ignore[union-attr]
    with torch.no_grad():
        expected = model.encode_image((images / 255 - backbone.mean) / backbone.std)
        torch.testing.assert_close(backbone(images, mapped=0).pooled, expected)
        expected = model.encode_text(open_clip.tokenize(TEXTS))
        torch.testing.assert_close(net.clip_text.embed(TEXTS), expected)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["ViT-S-16", "RN50"])
def test_both_towers_have_the_random_weights_of_one_open_clip_model_of_the_same_seed(name: str) -> None:
    towers_agree(built(name), own(name))


@pytest.mark.parametrize("tasks", ["c", "v", "vc"])
def test_so_they_have_for_every_mixture_of_tasks_that_reads_texts(tasks: str) -> None:
    towers_agree(built("ViT-S-16", tasks=tasks), own("ViT-S-16"))


def test_zero_shot_logits_are_open_clips_own_of_the_same_seed() -> None:
    net, model = built("ViT-S-16"), own("ViT-S-16")
    batch = replace(batches()["c"], labels=torch.tensor([0, 1, 2]))  # type: ignore[call-arg]
    backbone: Any = net.shared.trunk.backbone  # type: ignore[union-attr]
    with torch.no_grad():
        image = (batch.images / 255 - backbone.mean) / backbone.std
        words = open_clip.tokenize([f"a photo of a {name}." for name in ("star", "ring", "box")])
        expected, _ = model.get_logits(image, words)
        torch.testing.assert_close(net.predict("c", batch), expected)


@pytest.mark.parametrize("name", ["convnext_base", "ViT-S-16"])
def test_weights_are_loaded_once_into_both_towers(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = own(name)
    reads = []
    read = open_clip_models.read_weights
    monkeypatch.setattr(open_clip_models, "read_weights", lambda file: (reads.append(file), read(file))[1])
    monkeypatch.setattr("harness.models.backbones.base.read_weights", lambda file: (reads.append(file), read(file))[1])
    net = built(name, seed=8, weights=folder(tmp_path / "clip", name, model.state_dict()))
    assert len(reads) == 1
    towers_agree(net, model)
    with torch.no_grad():  # the tower takes other sizes than its own, too
        assert net.shared.trunk.backbone(torch.zeros(1, 3, 96, 32, dtype=torch.uint8), mapped=0).pooled.shape == (1, 24)  # type: ignore[union-attr]


def test_a_model_is_built_once_and_without_a_word(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    builds = []
    build = network_module.build_clip
    monkeypatch.setattr(network_module, "build_clip", lambda config: (builds.append(config), build(config))[1])
    built("ViT-S-16")
    assert len(builds) == 1
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    built("ViT-S-16", zero_shot=False, tasks="c")
    assert len(builds) == 1  # nothing reads texts
