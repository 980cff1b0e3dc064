"""Tokens on several levels, and levels that open one after another."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from placeholder_support import as_after_some_steps, losses, network, tokens_of
from tests_support import batches

from harness.errors import HarnessError
from harness.models.config import PlaceholderConfig
from harness.models.placeholders import Placeholders
from harness.models.placeholders.ways import levels_of

SMALL: dict[str, Any] = {"count": 2, "width": 4, "attention_width": 4, "heads": 1}
SITES = {f"backbone.{number}": 6 for number in range(6)}


def test_site_number_l_of_big_l_uses_level_s_l_over_big_l_rounded_down() -> None:
    assert list(levels_of({"t": list("abcdef")}, 4).values()) == [0, 0, 1, 2, 2, 3]
    assert list(levels_of({"t": list("abcd")}, 4).values()) == [0, 1, 2, 3]
    assert list(levels_of({"t": list("abcd")}, 1).values()) == [0, 0, 0, 0]


def test_sites_are_counted_along_each_tasks_way_not_over_all_trunks() -> None:
    ways = {"s": ["s/a", "s/b"], "t": ["t/a", "t/b"]}
    assert levels_of(ways, 2) == {"s/a": 0, "s/b": 1, "t/a": 0, "t/b": 1}
    assert levels_of({"s": ["a", "b"], "v": ["a", "b", "text", "c"]}, 4) == {"a": 0, "b": 1, "text": 2, "c": 3}


def test_more_levels_than_sites_are_refused_for_their_tokens_would_never_be_used() -> None:
    with pytest.raises(HarnessError, match=r"levels: 6 levels need as many sites on a sample's way, .* are 5 at most"):
        network({"levels": 6})


def test_every_level_has_k_tokens_and_the_first_starts_as_without_levels() -> None:
    plain, net = network({}), network({"levels": 4})
    own, found = plain.state_dict(), net.state_dict()
    assert found["placeholders.bank.tokens"].shape == (4, 8, 16)
    assert torch.equal(found["placeholders.bank.tokens"][0], own["placeholders.bank.tokens"])
    same = [name for name in own if name != "placeholders.bank.tokens"]
    assert all(torch.equal(own[name], found[name]) for name in same)
    others = found["placeholders.bank.tokens"][1:]
    assert others.std().item() == pytest.approx(0.02, rel=0.1)
    assert len({one.sum().item() for one in others}) == 3


def test_a_level_is_carried_from_site_to_site_of_its_own() -> None:
    torch.manual_seed(0)
    found = Placeholders(PlaceholderConfig(**SMALL, levels=2), SITES)
    stream = found.begin(1)
    features = torch.randn(1, 5, 6)
    second = stream.tokens[:, 2:]
    for site in list(SITES)[:3]:
        stream.exchange(site, features)
    first = stream.tokens[:, :2]
    assert not torch.equal(first[0], found.bank.tokens[0])
    assert torch.equal(stream.tokens[:, 2:], second)
    assert torch.equal(second[0], found.bank.tokens[1])
    stream.exchange("backbone.3", features)
    assert torch.equal(stream.tokens[:, :2], first)
    assert not torch.equal(stream.tokens[:, 2:], second)


def test_analyses_see_and_change_the_tokens_of_the_sites_own_level() -> None:
    found = Placeholders(PlaceholderConfig(**SMALL, levels=2), SITES)
    found.edit = lambda site, tokens: torch.full_like(tokens, float(site[-1]))
    stream = found.begin(1)
    for site in SITES:
        stream.exchange(site, torch.randn(1, 5, 6))
    assert torch.equal(stream.tokens[0, :, 0], torch.tensor([2.0, 2, 5, 5]))


def test_levels_open_after_equal_shares_of_the_steps() -> None:
    found = Placeholders(PlaceholderConfig(**SMALL, levels=4, opening="staged"), SITES)
    assert int(found.opened) == 4  # what was never trained in stages is open
    opened = []
    for step in range(100):
        found.advance(step, 100)
        opened.append(int(found.opened))
    assert [opened.index(level) for level in (1, 2, 3, 4)] == [0, 25, 50, 75]


def test_sites_of_a_closed_level_do_nothing_and_its_tokens_do_not_learn() -> None:
    net = network({"levels": 4, "opening": "staged"})
    as_after_some_steps(net)
    sites = net.site_names()  # five on the way of a question: levels 0, 0, 1, 2, 3
    net.advance(30, 100)
    seen = []
    tokens_of(net).edit = lambda site, tokens: (seen.append(site), tokens)[1]
    torch.stack(list(losses(net).values())).sum().backward()
    tokens = tokens_of(net).bank.tokens
    assert [bool(one.abs().sum() > 0) for one in tokens.grad] == [True, True, False, False]
    assert set(seen) == {"backbone.layer3", "backbone.layer4", "vqa.image"}
    closed = [tokens_of(net).sites[site.replace(".", "/")] for site in sites if site not in seen]
    assert all(parameter.grad is None for site in closed for parameter in site.parameters())
    net.zero_grad()
    net.advance(75, 100)
    torch.stack(list(losses(net).values())).sum().backward()
    assert all(one.abs().sum() > 0 for one in tokens.grad)


def test_closed_tokens_are_no_part_of_what_is_told_of_the_tokens() -> None:
    found = Placeholders(PlaceholderConfig(**SMALL, levels=4, opening="staged"), SITES)
    found.advance(30, 100)
    stream = found.begin(3)
    assert stream.tokens.shape == (3, 2 * 2, 4)
    assert stream.rows(slice(0, 1)).tokens.shape == (1, 2 * 2, 4)


def test_how_far_levels_are_open_is_kept_with_the_weights() -> None:
    """Weights of an earlier step, chosen on the selection splits, must be scored as they were trained."""
    net, copy = network({"levels": 4, "opening": "staged"}), network({"levels": 4, "opening": "staged"})
    net.advance(30, 100)
    copy.load_state_dict(net.state_dict())
    assert int(tokens_of(copy).opened) == 2


def test_a_deep_prefix_is_as_long_as_its_level_is_open() -> None:
    options = {"backbone": {"name": "test_vit"}, "neck": {"channels": 32, "strides": [8, 16]}}
    net = network({"levels": 2, "opening": "staged", "mechanism": "prefix_deep"}, **options)
    net.eval()
    blocks = [module for name, module in net.named_modules() if name.endswith((".blocks.0", ".blocks.1", ".blocks.5"))]
    lengths: list[int] = []
    for block in blocks:
        block.attn.register_forward_hook(lambda module, inputs, output: lengths.append(output.shape[1]))
    batch = batches()["c"]
    net.predict("c", batch)
    opened = list(lengths)
    lengths.clear()
    net.advance(0, 100)
    net.predict("c", batch)
    assert lengths[0] == opened[0] == opened[-1]
    assert lengths[-1] == opened[-1] - 8
