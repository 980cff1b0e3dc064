"""Every family of backbones with every kind of placeholder tokens and every head: all four tasks, trained together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests_support import batches, document
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from harness.data.batches import Batch, VqaBatch
from harness.errors import HarnessError
from harness.models.config import ModelConfig
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.models.placeholders import ExchangeSite, LogitShift

SPECS = {
    "c": TaskSpec("classification", 5, names=("disc", "ring", "box", "star", "bar_code")),
    "d": TaskSpec("detection", 3),
    "s": TaskSpec("segmentation", 4),
    "v": TaskSpec("vqa", 7, words=10),
}
CLIP_TEXT = {"width": 16, "heads": 2, "layers": 2}
BACKBONES: dict[str, dict[str, Any]] = {
    "cnn": {"name": "test_resnet"},
    "efficient": {"name": "test_efficientnet"},
    "unnormalised": {"name": "test_nfnet"},
    "regnet": {"name": "regnetx_002"},
    "hierarchical": {"name": "test_convnext"},
    "windows": {
        "name": "swin_tiny_patch4_window7_224",
        "options": {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2], "window_size": 2},
    },
    "vit": {"name": "test_vit"},
    "torchvision": {"library": "torchvision", "name": "shufflenet_v2_x0_5"},
    "open_clip": {
        "library": "open_clip",
        "name": "ViT-B-32",
        "options": {
            "embed_dim": 24,
            "vision_cfg": {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
            "text_cfg": CLIP_TEXT,
        },
    },
}
TRANSFORMERS = ("vit", "open_clip")
MORE = ("efficient", "unnormalised", "regnet")  # tried in every combination by the slow tests only
KINDS: dict[str, dict[str, Any]] = {
    "exchange": {},
    "prefix_shallow": {"mechanism": "prefix_shallow"},
    "prefix_deep": {"mechanism": "prefix_deep"},
    "input": {"placement": "input"},
    "output": {"placement": "output"},
}
PLAIN_HEADS: dict[str, Any] = {
    "detection": {"convolutions": 1},
    "vqa": {"width": 16, "heads": 2, "layers": 1, "stride": 8},
}
OTHER_HEADS: dict[str, Any] = {
    "detection": {"name": "faster_rcnn", "width": 16, "anchor_scale": 2, "samples": 32},
    "segmentation": {"name": "upernet", "channels": 32},
    "vqa": {"name": "co_attention", "width": 16, "heads": 2, "layers": 1, "stride": 8},
}


def model(family: str, kind: str, heads: dict[str, Any], count: int) -> ModelConfig:
    found = document(count)["model"] | {"backbone": BACKBONES[family], "heads": heads}
    found["placeholders"] |= KINDS[kind]
    if family == "open_clip":
        found["text"] = {"library": "open_clip"}
        if heads is OTHER_HEADS:
            found["heads"] = heads | {"classification": {"name": "zero_shot"}}
    return ModelConfig.model_validate(found)


def build(config: ModelConfig) -> MultiTaskNetwork:
    torch.manual_seed(0)
    return MultiTaskNetwork(config, SPECS)


def data() -> dict[str, Batch]:
    found = batches()
    question = found["v"]
    assert isinstance(question, VqaBatch)
    return found | {"v": replace(question, texts=("what is red", "how many stars", "is it a ring"))}


def losses(network: MultiTaskNetwork) -> dict[str, Tensor]:
    torch.manual_seed(1)  # of dropout and of the regions that a detector learns from
    return network(data())


def as_after_some_steps(network: MultiTaskNetwork) -> None:
    """Give weight to what starts at zero, through which alone gradients reach the tokens."""
    for module in network.modules():
        if isinstance(module, ExchangeSite):
            nn.init.normal_(module.up.weight, std=0.1)
        elif isinstance(module, LogitShift):
            nn.init.normal_(module.weight, std=0.1)


def combinations() -> list[Any]:
    found = []
    for family in BACKBONES:
        for kind in KINDS:
            if kind.startswith("prefix") and family not in TRANSFORMERS:
                continue
            for name, heads in (("plain", PLAIN_HEADS), ("other", OTHER_HEADS)):
                more = family in MORE and not (kind == "exchange" and name == "plain")
                marks = [pytest.mark.slow] if more else []
                found.append(pytest.param(family, kind, heads, id=f"{family}-{kind}-{name}", marks=marks))
    return found


@pytest.mark.parametrize(("family", "kind", "heads"), combinations())
def test_all_tasks_train_and_all_reach_the_one_tensor(family: str, kind: str, heads: dict[str, Any]) -> None:
    plain, network = build(model(family, kind, heads, 0)), build(model(family, kind, heads, 4))
    own = network.state_dict()
    assert {name for name in own if not name.startswith("placeholders.")} == set(plain.state_dict())
    assert all(torch.equal(value, own[name]) for name, value in plain.state_dict().items())
    if kind in ("exchange", "output"):
        expected, found = losses(plain), losses(network)
        assert all(torch.equal(found[name], expected[name]) for name in SPECS)

    as_after_some_steps(network)
    assert network.placeholders is not None
    tokens = network.placeholders.bank.tokens
    found = losses(network)
    assert all(torch.isfinite(loss) for loss in found.values())
    for name, loss in found.items():
        (gradient,) = torch.autograd.grad(loss, tokens, retain_graph=True)
        assert torch.isfinite(gradient).all(), name
        assert gradient.abs().sum() > 0, name
    torch.stack(list(found.values())).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name

    network.eval()
    copy = build(model(family, kind, heads, 4)).eval()
    copy.load_state_dict(network.state_dict())
    for name, batch in data().items():
        assert _same(network.predict(name, batch), copy.predict(name, batch))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    return all(torch.equal(x[key], y[key]) for x, y in zip(a, b, strict=True) for key in x)


@pytest.mark.parametrize("family", [name for name in BACKBONES if name not in TRANSFORMERS])
def test_a_network_without_a_sequence_takes_no_prefix_and_says_what_to_take(family: str) -> None:
    with pytest.raises(HarnessError, match="use mechanism: exchange"):
        build(model(family, "prefix_deep", PLAIN_HEADS, 4))


def test_class_texts_are_no_cost_of_an_image() -> None:
    network = build(model("open_clip", "exchange", OTHER_HEADS, 4)).eval()
    counts = []
    for _ in range(2):
        with FlopCounterMode(display=False) as counter:
            network.predict("c", data()["c"])
        counts.append(counter.get_total_flops())
    fresh = build(model("open_clip", "exchange", OTHER_HEADS, 4)).eval()
    fresh.prepare("c")
    with FlopCounterMode(display=False) as counter:
        fresh.predict("c", data()["c"])
    assert counts[0] > counts[1] == counter.get_total_flops()
