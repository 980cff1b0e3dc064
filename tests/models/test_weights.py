"""Local weights: torchvision's and open_clip's own files, mismatches, files of strangers, identity; freezing."""

from __future__ import annotations

import hashlib
import pickle
import re
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip
import orjson
import pytest
import torch
import torchvision
import yaml
from safetensors.torch import save_file
from test_backbones import CLIP_VIT, build, pictures
from tests_support import document
from torch import nn

from harness.errors import HarnessError
from harness.models.backbones.freezing import depths
from harness.models.backbones.open_clip_models import build_clip
from harness.models.config import BackboneConfig
from harness.models.weight_files import find_weights, weights_digest
from harness.submission import load_submission


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvisions_own_checkpoint_gives_torchvisions_own_logits(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(7)
    model = torchvision.models.resnet18().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # fresh statistics would hide that they are loaded
            nn.init.uniform_(module.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(model.state_dict(), file)
    else:
        save_file(model.state_dict(), file)
    backbone = build("torchvision", "resnet18", weights=str(file)).eval()
    images = pictures(96, 64)
    with torch.no_grad():
        recipe = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (recipe.mean, recipe.std))
        logits = model((images / 255 - mean) / std)
        torch.testing.assert_close(model.fc(backbone(images).pooled), logits)


def test_image_and_text_features_are_open_clips_own(tmp_path: Path) -> None:
    torch.manual_seed(3)
    description = open_clip.get_model_config("ViT-S-16")
    description["embed_dim"] = 24
    description["vision_cfg"] |= CLIP_VIT["vision_cfg"]
    description["text_cfg"] |= {"width": 32, "heads": 2, "layers": 2}
    model = open_clip.create_model("ViT-S-16", **description).eval()
    folder = tmp_path / "clip"
    folder.mkdir()
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    constants = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    config = {"model_cfg": description, "preprocess_cfg": constants}
    (folder / "open_clip_config.json").write_bytes(orjson.dumps(config))
    weights = f"local-dir:{folder}"
    backbone = build("open_clip", "mine", weights=weights).eval()
    images = pictures(64, 64)
    mean, std = (torch.tensor(constants[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        own = model.encode_image((images / 255 - mean) / std)
        torch.testing.assert_close(backbone(images).pooled, own)
        whole, tokenizer = build_clip(BackboneConfig(library="open_clip", name="mine", weights=weights))
        words = tokenizer(["a red circle", "two squares"])
        assert torch.equal(words, open_clip.get_tokenizer("ViT-S-16")(["a red circle", "two squares"]))
        assert torch.equal(whole.eval().encode_text(words), model.encode_text(words))  # type: ignore[operator]


@pytest.fixture
def checkpoint(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    state = {key: value.clone() for key, value in build("timm", "test_resnet").body.state_dict().items()}
    state |= {"fc.weight": torch.zeros(10, 3), "fc.bias": torch.zeros(10)}
    return tmp_path / "w.pth", state


def test_a_checkpoint_of_another_shape_is_refused_with_what_does_not_fit(
    checkpoint: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    file, state = checkpoint
    first = next(iter(state))
    del state["bn1.weight"]
    state |= {"surprise": torch.zeros(1), first: torch.zeros(2, 2)}
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, file)
    told = f"1 missing: bn1.weight; 1 unexpected: surprise; 1 of another shape: {first} (2, 2) instead"
    with pytest.raises(HarnessError, match=re.escape(told)):
        build("timm", "test_resnet", weights=str(file))
    loaded = build("timm", "test_resnet", weights=str(file), allow_mismatch=True).body.state_dict()
    assert torch.equal(loaded["bn1.bias"], state["bn1.bias"])
    assert torch.equal(loaded[first], build("timm", "test_resnet").body.state_dict()[first])


@pytest.mark.parametrize("wrapped", ["state_dict", "model", ""])
def test_containers_and_prefixes_of_training_programs_are_looked_through(
    checkpoint: tuple[Path, dict[str, torch.Tensor]], wrapped: str
) -> None:
    file, state = checkpoint
    state["bn1.bias"] += 3
    prefix = "shared.trunk.backbone.body." if wrapped == "" else "module."
    named = {f"{prefix}{key}": value for key, value in state.items()}
    if wrapped == "":
        named["heads.c.weight"] = torch.zeros(1)  # the weights of a whole network of this package
    torch.save({wrapped: named, "epoch": 3} if wrapped else named, file)
    loaded = build("timm", "test_resnet", weights=str(file)).body.state_dict()
    assert torch.equal(loaded["bn1.bias"], state["bn1.bias"])


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("evil"),))


def test_files_that_are_no_weights_are_refused_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    contents: dict[str, tuple[bytes, str]] = {
        "code.pth": (b"", "holds more than weights, which is not read"),
        "noise.pth": (b"noise", "w?"),
        "noise.safetensors": (b"noise", "cannot be read as weights"),
    }
    torch.save({"model": Evil()}, tmp_path / "code.pth")
    for name, (content, message) in contents.items():
        if content:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(HarnessError, match=message):
            build("timm", "test_resnet", weights=str(tmp_path / name))
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(HarnessError, match=r"model\.backbone\.weights: .*plain\.pt"):
        build("timm", "test_resnet", weights="plain.pt")
    assert not (tmp_path / "evil").exists()
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(HarnessError, match="holds no named tensors"):
        build("timm", "test_resnet", weights="empty.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(HarnessError, match=r"none of the 1 weights in .* belongs to this model \(the first is 'a'\)"):
        build("timm", "test_resnet", weights="other.pth")


def test_a_folder_must_hold_one_file_of_weights(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="holds no file that ends in"):
        find_weights(str(tmp_path))
    (tmp_path / "a.bin").touch()
    (tmp_path / "a.safetensors").touch()
    assert find_weights(str(tmp_path)).file.name == "a.safetensors"
    (tmp_path / "b.safetensors").touch()
    with pytest.raises(HarnessError, match=r"several files of weights \(a\.safetensors, b\.safetensors\)"):
        find_weights(str(tmp_path))
    with pytest.raises(HarnessError, match=r"c\.pth does not exist"):
        find_weights(str(tmp_path / "c.pth"))
    (tmp_path / "d.npz").touch()
    with pytest.raises(HarnessError, match=r"must end in .*, not '\.npz'"):
        find_weights(str(tmp_path / "d.npz"))
    with pytest.raises(HarnessError, match=r"^here: .*c\.pth does not exist"):
        find_weights(str(tmp_path / "c.pth"), "here")


def test_the_bytes_of_weights_are_part_of_the_fingerprint_and_their_path_is_not(tmp_path: Path) -> None:
    def submission(file: Path) -> Any:
        content = document()
        content["model"]["backbone"]["weights"] = str(file)
        (tmp_path / "a.yaml").write_text(yaml.safe_dump(content))
        return load_submission(tmp_path / "a.yaml")

    first, second, other = (tmp_path / name for name in ("a.pth", "b.pth", "c.pth"))
    first.write_bytes(b"one"), second.write_bytes(b"one"), other.write_bytes(b"two")
    digest = hashlib.sha256(b"one").hexdigest()
    assert weights_digest(str(first)) == digest
    assert submission(first).fingerprint() == submission(second).fingerprint() != submission(other).fingerprint()
    assert submission(first).published()["model"]["backbone"]["weights"] == f"a.pth sha256:{digest}"
    assert submission(first).resolved()["model"]["backbone"]["weights"] == str(first)
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(submission(first).published()))
    with pytest.raises(
        HarnessError, match=r"model\.backbone\.weights: 'a\.pth sha256:.* what the weights are, not where"
    ):
        load_submission(tmp_path / "a.yaml")
    before = submission(first).fingerprint()
    first.write_bytes(b"two2")
    assert submission(first).fingerprint() != before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretrained": True, "weights": "a.pth"}, "pretrained: cannot be true when weights"),
        ({"allow_mismatch": True}, "allow_mismatch: only speaks of weights"),
        ({"options": {"checkpoint_path": "/tmp/x.pth"}}, "is neither a number nor a list of numbers"),
        ({"options": {"vision_cfg": {"timm_model_name": "resnet50"}}}, "is neither a number nor a list of numbers"),
        ({"frozen": True}, "frozen"),
        ({"frozen": 0}, "frozen"),
    ],
)
def test_settings_that_contradict_each_other_or_smuggle_a_path_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        BackboneConfig.model_validate({"name": "resnet18", **changes})


@pytest.mark.parametrize("library", ["timm", "torchvision", "open_clip"])
def test_pretrained_weights_without_a_network_are_refused_in_one_sentence(
    library: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # the variable of that name is read once
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    name = {"open_clip": "RN50"}.get(library, "resnet18")
    with pytest.raises(HarnessError, match=f"pretrained: the weights of '{name}' could not be downloaded") as caught:
        build(library, name, pretrained=True)
    assert "\n" not in str(caught.value)


def test_pretrained_weights_that_nobody_made_are_refused() -> None:
    with pytest.raises(HarnessError, match="timm has no weights for 'cspresnet50d'; set pretrained: false"):
        build("timm", "cspresnet50d", pretrained=True)
    with pytest.raises(HarnessError, match="open_clip has no weights 'mine' for RN50; it has openai,"):
        build("open_clip", "RN50.mine", pretrained=True)


def test_depths_follow_the_forward_pass() -> None:
    backbone = build("timm", "test_resnet")
    depth, greatest = backbone.layers()
    stages = [stage.module for stage in backbone.structure.stages]
    assert stages == ["act1", "layer1", "layer2", "layer3", "layer4"]
    assert depth["bn1.weight"] == 0
    assert {name.split(".")[0]: value for name, value in depth.items() if name.startswith("layer")} == {
        "layer1": 2, "layer2": 3, "layer3": 4, "layer4": 5,
    }  # fmt: skip
    assert greatest == 6
    body = build("timm", "test_vit").body
    blocks = [f"blocks.{index}" for index in range(len(body.blocks))]  # type: ignore[arg-type]
    found = depths(body, blocks)
    assert found["pos_embed"] == found["cls_token"] == found["patch_embed.proj.weight"] == 0
    assert found["blocks.0.norm1.weight"] == 1
    assert found["norm.weight"] == len(blocks) + 1


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_freezing_stops_weights_and_statistics_of_the_stages_that_are_named(name: str) -> None:
    whole = build("timm", name, frozen="all").train()
    assert not any(parameter.requires_grad for parameter in whole.body.parameters())
    assert not any(module.training for module in whole.body.modules())
    if whole.pyramid is not None:  # it is new, so it must be trained
        assert all(parameter.requires_grad for parameter in whole.pyramid.parameters())
    part = build("timm", name, frozen=2).train()
    depth, _ = part.layers()
    assert {key: p.requires_grad for key, p in part.body.named_parameters()} == {key: depth[key] > 2 for key in depth}
    before = {key: value.clone() for key, value in part.body.state_dict().items()}
    part(pictures(64, 64)).pooled.square().sum().backward()
    statistics = [key for key in before if key.endswith("running_mean")]
    moved = {key for key in statistics if not torch.equal(part.body.state_dict()[key], before[key])}
    assert moved == {key for key in statistics if depth[key.replace("running_mean", "weight")] > 2}
    with pytest.raises(HarnessError, match=r"frozen: 99 is more than the \d+ stages; use all"):
        build("timm", name, frozen=99)


def test_frozen_norms_keep_weights_and_statistics_while_kernels_learn() -> None:
    backbone = build("timm", "test_resnet", frozen="norm").train()
    before = {key: value.clone() for key, value in backbone.body.state_dict().items()}
    backbone(pictures(64, 64)).pooled.sum().backward()
    assert all(torch.equal(value, before[key]) for key, value in backbone.body.state_dict().items())
    frozen = {name for name, parameter in backbone.body.named_parameters() if not parameter.requires_grad}
    norms = (nn.BatchNorm2d,)
    assert frozen == {
        f"{name}.{part}"
        for name, module in backbone.body.named_modules()
        if isinstance(module, norms)
        for part in ("weight", "bias")
    }
    assert backbone.body.get_submodule("conv1.0").weight.grad is not None
