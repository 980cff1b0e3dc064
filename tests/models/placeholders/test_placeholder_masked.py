"""A masked prefix: it is there, and nothing of it reaches the features."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from placeholder_support import as_after_some_steps, losses, network, tokens_of
from tests_support import batches
from torch import Tensor, nn

from harness.errors import HarnessError
from harness.models.clip_text import causal_mask
from harness.models.network import MultiTaskNetwork

NECK = {"channels": 32, "strides": [8, 16]}
TINY_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"width": 16, "heads": 2, "layers": 2},
}
BACKBONES: dict[str, dict[str, Any]] = {
    "timm": {"backbone": {"name": "test_vit"}, "neck": NECK},
    "rotary": {
        "backbone": {
            "name": "eva02_tiny_patch14_224",
            "options": {"depth": 2, "embed_dim": 48, "num_heads": 2, "img_size": 56},
        },
        "neck": NECK,
    },
    "torchvision": {
        "backbone": {"library": "torchvision", "name": "vit_b_16", "options": {"image_size": 64}},
        "neck": NECK,
    },
    "open_clip": {
        "backbone": {"library": "open_clip", "name": "ViT-B-32", "options": TINY_CLIP},
        "neck": NECK,
        "text": {"library": "open_clip"},
    },
}


def predicted(net: MultiTaskNetwork, task: str) -> Tensor:
    batch = batches()[task]
    if task == "v":
        batch = replace(batch, texts=("what is red", "how many stars", "is it a ring"))  # type: ignore[call-arg]
    found: Tensor = net.eval().predict(task, batch)
    return found


CASES = [(family, f"prefix_{depth}") for family in ("timm", "open_clip", "rotary") for depth in ("shallow", "deep")]


@pytest.mark.parametrize(
    ("family", "mechanism"), [*CASES, pytest.param("torchvision", "prefix_deep", marks=pytest.mark.slow)]
)
def test_a_masked_prefix_computes_what_the_plain_network_computes(family: str, mechanism: str) -> None:
    options = BACKBONES[family]
    plain = network({"count": 0}, **options)
    masked = network({"mechanism": mechanism, "masked": True}, **options)
    seen = network({"mechanism": mechanism}, **options)
    for net in (masked, seen):
        nn.init.normal_(tokens_of(net).bank.tokens)
    for task in ("c", "s", "v"):
        expected = predicted(plain, task)
        torch.testing.assert_close(predicted(masked, task), expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(predicted(seen, task), expected, rtol=1e-4, atol=1e-5)


def test_no_gradient_reaches_tokens_that_nothing_reads() -> None:
    net = network({"mechanism": "prefix_deep", "masked": True}, **BACKBONES["timm"])
    torch.stack([loss for name, loss in losses(net).items()]).sum().backward()
    assert not tokens_of(net).bank.tokens.grad.any()


def test_a_masked_prefix_costs_what_a_prefix_costs() -> None:
    net = network({"mechanism": "prefix_deep", "masked": True}, **BACKBONES["timm"])
    lengths = []
    for name, module in net.named_modules():
        if name.endswith("attn"):
            module.register_forward_hook(lambda module, inputs, output: lengths.append(output.shape[1]))
    predicted(net, "c")
    plain = predicted(network({"count": 0}, **BACKBONES["timm"]), "c")
    assert plain.shape == (3, 5)
    assert set(lengths) == {1 + 16 + 8}


def test_words_see_no_masked_tokens_and_these_see_each_other() -> None:
    mask = causal_mask(2, 2, torch.zeros(()), masked=True)
    hidden = float("-inf")
    expected = [
        [0, hidden, hidden, hidden],
        [0, 0, hidden, hidden],
        [hidden, hidden, 0, 0],
        [hidden, hidden, 0, 0],
    ]
    assert torch.equal(mask, torch.tensor(expected))


@pytest.mark.parametrize(
    ("model", "placeholders", "message"),
    [
        ({}, {"placement": "input"}, "has no sequence whose attention could be masked"),
        ({}, {"mechanism": "prefix_deep"}, "has no sequence whose attention could be masked"),
        (
            {"backbone": {"name": "cait_xxs24_224", "options": {"depth": 2}}, "neck": NECK},
            {"mechanism": "prefix_deep"},
            "the attention of cait_xxs24_224 takes no mask; take another backbone, or mechanism: exchange with write",
        ),
    ],
)
def test_a_network_that_takes_no_mask_says_so(
    model: dict[str, Any], placeholders: dict[str, Any], message: str
) -> None:
    with pytest.raises(HarnessError, match=f"placeholders.masked: .*{message}"):
        network(placeholders | {"masked": True}, **model)
    as_after_some_steps(network(placeholders if model else {}, **model))  # without the mask it can be built
