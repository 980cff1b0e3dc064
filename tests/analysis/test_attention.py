"""Attention at exchange sites: what hooks see is what the site does; bounds of entropies; maps over images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from tests_support import batches, document

from harness.analysis.attention import Look, Summary, attention, entropy, watched
from harness.analysis.pictures import overlay
from harness.models.config import ModelConfig
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.models.placeholders import ExchangeSite

SPECS = {
    "c": TaskSpec("classification", 5),
    "d": TaskSpec("detection", 3),
    "s": TaskSpec("segmentation", 4),
    "v": TaskSpec("vqa", 7, words=10),
}


def network(**placeholders: Any) -> MultiTaskNetwork:
    model = document(4)["model"]
    model["placeholders"] |= placeholders
    torch.manual_seed(0)
    return MultiTaskNetwork(ModelConfig.model_validate(model), SPECS).eval()


def seen(net: MultiTaskNetwork, name: str) -> list[Look]:
    looks: list[Look] = []
    with watched(net, looks.append):
        net.predict(name, batches()[name])
    return looks


def test_every_row_of_attention_sums_to_one_at_every_site_of_every_task() -> None:
    net = network()
    for name in SPECS:
        looks = seen(net, name)
        assert {look.site for look in looks} <= set(net.site_names())
        for look in looks:
            assert look.read is not None
            assert look.write is not None
            torch.testing.assert_close(look.read.sum(-1), torch.ones(look.read.shape[:-1]))
            torch.testing.assert_close(look.write.sum(-1), torch.ones(look.write.shape[:-1]))
    assert [look.site for look in seen(net, "v")][-3:] == ["vqa.image", "text", "vqa.question"]


def test_what_the_hooks_see_gives_back_the_tokens_that_the_site_gives() -> None:
    torch.manual_seed(0)
    site = ExchangeSite(12, 8, 4, heads=2)
    torch.nn.init.normal_(site.up.weight)
    features, tokens = torch.randn(2, 5, 12), torch.randn(2, 3, 8)
    padding = torch.tensor([[False] * 5, [False, False, True, True, True]])
    low = site.down(site.feature_norm(features))
    read = attention(site.read_query(site.token_norm(tokens)), low, 2, padding)
    mixed = torch.einsum("bhkn,bnhc->bkhc", read, low.unflatten(-1, (2, 2))).flatten(2)
    _, expected = site(features, tokens, padding)
    torch.testing.assert_close(tokens + site.read_out(mixed), expected)
    assert (read[1, :, :, 2:] == 0).all()


def test_nothing_is_left_behind_by_watching() -> None:
    net = network()
    before = net.predict("c", batches()["c"])
    looks = seen(net, "c")
    count = len(looks)
    after = net.predict("c", batches()["c"])
    assert torch.equal(before, after)
    assert len(looks) == count > 0


def test_entropy_is_zero_on_one_place_and_one_where_all_are_alike() -> None:
    assert entropy(torch.tensor([[1.0, 0, 0, 0]]), 4) == 0
    torch.testing.assert_close(entropy(torch.full((2, 4), 0.25), 4), torch.ones(2))
    half = entropy(torch.tensor([[0.5, 0.5, 0, 0]]), 4)
    torch.testing.assert_close(half, torch.tensor([math.log(2) / math.log(4)]))
    assert entropy(torch.ones(3, 1), 1) is None


def test_entropy_over_what_is_no_padding_is_relative_to_that() -> None:
    weights = torch.tensor([[0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25]])
    torch.testing.assert_close(entropy(weights, torch.tensor([2, 4])), torch.ones(2))


def test_a_summary_counts_every_sample_once_whatever_the_batches() -> None:
    torch.manual_seed(0)
    read, write = torch.rand(5, 2, 3, 7).softmax(-1), torch.rand(5, 2, 7, 3).softmax(-1)
    share = torch.rand(5, 7)

    def summary(*parts: slice) -> dict[str, Any]:
        found = Summary()
        for part in parts:
            found.add(Look("site", read[part], write[part], None, share[part]))
        return found.sites()["site"]

    whole, split = summary(slice(0, 5)), summary(slice(0, 1), slice(1, 5))
    assert sum(whole["mass"]) == pytest.approx(1)
    assert whole["mass"] == pytest.approx(write.mean((0, 1, 2)).tolist())
    assert whole["written"] == pytest.approx(float(share.mean()))
    for key, value in whole.items():
        assert split[key] == pytest.approx(value)


def test_padding_has_no_part_in_a_summary() -> None:
    write = torch.tensor([[[[1.0, 0], [0, 1], [0, 1]]]])
    found = Summary()
    found.add(Look("site", None, write, torch.tensor([[False, False, True]]), torch.tensor([[1.0, 3, 500]])))
    one = found.sites()["site"]
    assert one["mass"] == [0.5, 0.5]
    assert one["written"] == 2
    assert one["read_entropy"] is None


def test_the_place_that_gets_all_attention_is_tinted_and_no_other() -> None:
    batch = batches()["c"]
    plain = np.asarray(overlay(batch, 0)).astype(int)
    weights = np.zeros((4, 4), np.float32)
    weights[0, 3] = 1  # the right upper corner
    drawn = np.asarray(overlay(batch, 0, weights, stride=16)).astype(int)
    change = np.abs(drawn - 0.45 * plain).mean(-1)
    assert change[4:28, 100:124].mean() > 60
    assert change[40:, :90].max() <= 2
