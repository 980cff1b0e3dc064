"""Attention to inserted tokens: what is seen is what the blocks compute, and watching changes nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests_support import batches, document
from torch import Tensor, nn

from harness.analysis.attention import Look, Summary
from harness.analysis.prefixes import look, watched
from harness.analysis.self_attention import Watch, watching
from harness.models.attention import Attention
from harness.models.config import ModelConfig
from harness.models.network import MultiTaskNetwork, TaskSpec

SPECS = {"c": TaskSpec("classification", 5), "v": TaskSpec("vqa", 7, words=10)}
OPTIONS = {"img_size": 64, "patch_size": 16, "embed_dim": 32, "depth": 3, "num_heads": 2}
VIT = {"name": "vit_tiny_patch16_224", "options": OPTIONS}
CLIP = {
    "library": "open_clip",
    "name": "ViT-B-32",
    "options": {"vision_cfg": {"image_size": 64, "layers": 3, "width": 64, "patch_size": 16, "head_width": 32}},
}
TORCHVISION = {"library": "torchvision", "name": "vit_b_16", "options": {"image_size": 64}}  # there is no smaller one
LIBRARIES = pytest.mark.parametrize(
    ("backbone", "depth"), [(VIT, 3), (CLIP, 3), (TORCHVISION, 12)], ids=["timm", "open_clip", "torchvision"]
)


def network(backbone: dict[str, Any], model: dict[str, Any] | None = None, **placeholders: Any) -> MultiTaskNetwork:
    content = document(4)["model"] | {"backbone": backbone} | (model or {})
    content["neck"] = {"channels": 32, "strides": [16]}
    content["heads"]["vqa"]["stride"] = 16
    content["placeholders"] |= {"mechanism": "prefix_deep"} | placeholders
    torch.manual_seed(0)
    return MultiTaskNetwork(ModelConfig.model_validate(content), SPECS).eval()


def seen(net: MultiTaskNetwork, name: str) -> list[Look]:
    looks: list[Look] = []
    with torch.no_grad(), watched(net, looks.append):
        net.predict(name, batches()[name])
    return looks


@pytest.mark.parametrize("mechanism", ["prefix_deep", "prefix_shallow"])
@LIBRARIES
def test_every_block_of_every_library_is_seen(backbone: dict[str, Any], depth: int, mechanism: str) -> None:
    net = network(backbone, mechanism=mechanism)
    looks = seen(net, "v")
    images = [one for one in looks if "backbone." in one.site]
    assert len({one.site for one in images}) == len(images) == depth
    assert [one.site for one in looks if one not in images] == ["text.0", "text.1"][: len(looks) - depth]
    assert len(looks) > depth
    for one in looks:
        assert one.total is not None
        assert one.write is not None
        assert one.write.shape[-1] == 4
        torch.testing.assert_close(one.write.sum(-1), torch.ones(one.write.shape[:-1]))
        assert ((one.total > 0) & (one.total < 1)).all()
    assert images[0].total.shape[-1] == 16 + 1  # type: ignore[union-attr]
    shallow = mechanism == "prefix_shallow"
    # What tokens read in the last block, or before they are taken out again, is lost.
    assert [one.read is not None for one in images] == [*[shallow] * (depth - 1), False]


@LIBRARIES
def test_watching_changes_no_bit_and_leaves_nothing_behind(backbone: dict[str, Any], depth: int) -> None:
    net = network(backbone)
    plain = F.scaled_dot_product_attention
    with torch.no_grad():
        before = net.predict("c", batches()["c"])
        looks: list[Look] = []
        with watched(net, looks.append):
            during = net.predict("c", batches()["c"])
        count = len(looks)
        after = net.predict("c", batches()["c"])
    assert torch.equal(before, during)
    assert torch.equal(before, after)
    assert len(looks) == count == depth
    assert F.scaled_dot_product_attention is plain


def test_what_is_seen_of_a_block_mixes_its_values_to_what_it_gives() -> None:
    torch.manual_seed(0)
    block = Attention(8, 2).eval()
    x = torch.randn(2, 5, 8)
    padding = torch.tensor([[False] * 5, [False, False, False, True, True]])
    watch = Watch()
    with torch.no_grad(), watching({block: watch}):
        found = block(x, x, padding)
    assert watch.weights is not None
    assert (watch.weights[1, :, :, 3:] == 0).all()
    value = block.value(block.context_norm(x)).unflatten(-1, (2, 4))
    mixed = torch.einsum("bhnm,bmhc->bnhc", watch.weights, value).flatten(2)
    torch.testing.assert_close(x + block.scale * block.out(mixed), found)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("masked", ["", "added", "marked"])
def test_torchs_own_attention_tells_the_same_weights(batch_first: bool, masked: str) -> None:
    """In evaluation it goes a way of its own; a marked place may not be seen here, and may be elsewhere."""
    torch.manual_seed(0)
    part = nn.MultiheadAttention(8, 2, batch_first=batch_first).eval()
    nn.init.normal_(part.in_proj_bias)
    x = torch.randn(3, 4, 8)
    hidden = torch.ones(*([4, 4] if batch_first else [3, 3]), dtype=torch.bool).triu(1)
    mask: Tensor | None = None
    if masked:
        mask = hidden if masked == "marked" else torch.zeros(hidden.shape).masked_fill(hidden, float("-inf"))
    watch = Watch()
    with torch.no_grad(), watching({part: watch}):
        part(x, x, x, need_weights=False, attn_mask=mask)
    _, expected = part(x, x, x, need_weights=True, average_attn_weights=False, attn_mask=mask)
    torch.testing.assert_close(watch.weights, expected)


def test_a_blocks_attention_is_parted_into_that_to_the_tokens_and_the_rest() -> None:
    # A class token, two inserted tokens, one patch; one head. Rows: who looks; columns: at whom.
    weights = torch.tensor([[0.4, 0.3, 0.1, 0.2], [0.3, 0.4, 0.2, 0.1], [0.5, 0.25, 0.0, 0.25], [0.2, 0.1, 0.1, 0.6]])[
        None, None
    ]
    one = look("x", weights, (1, 3), None, reads=True)
    assert one is not None
    torch.testing.assert_close(one.total, torch.tensor([[[0.4, 0.2]]]))
    torch.testing.assert_close(one.write, torch.tensor([[[[0.75, 0.25], [0.5, 0.5]]]]))
    torch.testing.assert_close(one.read, torch.tensor([[[[0.75, 0.25], [2 / 3, 1 / 3]]]]))
    torch.testing.assert_close(one.even, torch.tensor([[[0.5, 0.5]]]))
    found = Summary()
    found.add(one)
    site = found.sites()["x"]
    assert site["to_tokens"] == pytest.approx(0.3)
    assert site["even"] == pytest.approx(0.5)
    assert site["mass"] == pytest.approx([0.625, 0.375])  # of the attention to tokens, so that it sums to one
    half = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(2)
    assert site["write_entropy"] == pytest.approx((half + 1) / 2)
    assert site["written"] is None
    assert look("x", weights, (1, 1), None, reads=True) is None  # tokens of a level that is still closed


def test_padding_neither_looks_nor_is_looked_at() -> None:
    weights = torch.tensor([[0.2, 0.2, 0.6], [0.7, 0.2, 0.1], [0.1, 0.4, 0.5]])[None, None]
    padding = torch.tensor([[False, True]])
    one = look("x", weights, (2, 3), padding, reads=True)
    assert one is not None
    torch.testing.assert_close(one.read, torch.tensor([[[[1.0, 0.0]]]]))
    found = Summary()
    found.add(one)
    assert found.sites()["x"]["to_tokens"] == pytest.approx(0.6)


def test_the_padding_of_images_is_known_in_every_block() -> None:
    net = network(VIT)
    batch = replace(batches()["c"], contents=torch.tensor([[64, 64], [32, 64], [64, 16]]))
    looks: list[Look] = []
    with torch.no_grad(), watched(net, looks.append):
        net.predict("c", batch)
    for one in looks:
        assert one.padding is not None
        assert (~one.padding).sum(1).tolist() == [17, 9, 5]  # the class token is none


def test_a_masked_prefix_gets_no_attention() -> None:
    looks = seen(network(VIT, masked=True), "v")
    assert looks
    for one in looks:
        assert one.total is not None
        assert (one.total == 0).all()
        assert one.write is None
        found = Summary()
        found.add(one)
        site = found.sites()[one.site]
        assert (site["to_tokens"], site["mass"], site["write_entropy"], site["even"]) == (0, None, None, 0)


def test_words_of_a_clip_tower_look_back_and_at_tokens_only() -> None:
    text = {"library": "open_clip", "name": "ViT-B-32"}
    net = network(VIT, {"text": text}, mechanism="prefix_shallow")
    batch = replace(batches()["v"], texts=("what is it", "where", "how many green things"))
    seen_in: list[Look] = []
    with torch.no_grad(), watched(net, seen_in.append):
        net.predict("v", batch)
    looks = [one for one in seen_in if "text" in one.site]
    assert len(looks) == 12
    for one in looks:
        assert one.even is not None
        assert one.read is None  # tokens see no word
        assert one.even[0, 0].tolist() == pytest.approx([4 / (4 + n) for n in range(1, one.even.shape[-1] + 1)])


def test_a_trunk_per_task_has_its_blocks_by_the_task() -> None:
    net = network(VIT, {"sharing": {"name": "single"}})
    for name in SPECS:
        sites = [one.site for one in seen(net, name)]
        assert set(sites) <= set(net.site_names())
        assert sum(site.startswith(f"{name}/backbone.") for site in sites) == 3
