"""What happens at a site: tokens of second order, sites that only read or only write, and the adapter."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from placeholder_support import as_after_some_steps, count, losses, network, tokens_of
from tests_support import batches
from torch import nn

from harness.models.placeholders import Adapter, ExchangeSite, SecondOrder


def drawn(read: bool = True, write: bool = True) -> ExchangeSite:
    torch.manual_seed(0)
    return ExchangeSite(12, 10, 4, 2, read, write)


def test_second_order_adds_products_of_each_token_with_the_mean_token() -> None:
    order = SecondOrder(2, rank=1).double()
    with torch.no_grad():
        order.each.weight.copy_(torch.tensor([[1.0, 2.0]]))
        order.mean.weight.copy_(torch.tensor([[3.0, -1.0]]))
        order.out.weight.copy_(torch.tensor([[1.0], [10.0]]))
    tokens = torch.tensor([[[1.0, 0.0], [3.0, 2.0]]], dtype=torch.double)
    # The mean token is (2, 1), W_2 z̄ = 5; W_1 Z = 1 and 7: 5 and 35 times (1, 10) are added. Products of each token
    # with itself would be 1 · 3 and 7 · 7.
    expected = torch.tensor([[[6.0, 50.0], [38.0, 352.0]]], dtype=torch.double)
    torch.testing.assert_close(order(tokens), expected)


def test_second_order_has_3rd_parameters_starts_as_first_order_and_learns() -> None:
    order = SecondOrder(10)
    assert count(order) == 3 * 32 * 10
    tokens = torch.randn(2, 3, 10)
    assert torch.equal(order(tokens), tokens)
    order(tokens).square().sum().backward()
    assert order.out.weight.grad.abs().sum() > 0


def test_second_order_follows_the_read_and_precedes_the_write() -> None:
    plain, second = drawn(), drawn()
    second.interaction = SecondOrder(10)
    for site in (plain, second):
        nn.init.ones_(site.up.weight)
    nn.init.normal_(second.interaction.out.weight)
    features, tokens = torch.randn(2, 5, 12), torch.randn(2, 3, 10)
    _, read = plain(features, tokens)
    written, found = second(features, tokens)
    torch.testing.assert_close(found, second.interaction(read))
    # What is written is made of the tokens of second order.
    expected, _ = plain(features, tokens, edit=second.interaction)
    torch.testing.assert_close(written, expected)


def test_a_site_that_does_not_read_hands_tokens_on_as_they_came_but_writes() -> None:
    site = drawn(read=False)
    nn.init.normal_(site.up.weight)
    features, tokens = torch.randn(2, 5, 12), torch.randn(2, 3, 10)
    written, same = site(features, tokens)
    assert torch.equal(same, tokens)
    assert not torch.equal(written, features)


def test_a_site_that_does_not_write_hands_features_on_as_they_came_but_reads() -> None:
    site = drawn(write=False)
    features, tokens = torch.randn(2, 5, 12), torch.randn(2, 3, 10)
    same, read = site(features, tokens)
    assert torch.equal(same, features)
    assert torch.equal(read, drawn()(features, tokens)[1])


def test_what_is_switched_off_has_no_parameters_and_the_rest_starts_from_the_same_numbers() -> None:
    c, d, a = 12, 10, 4
    assert count(drawn(read=False)) == 2 * c * (a + 1) + 2 * d + 2 * a * d
    assert count(drawn(write=False)) == c * (a + 2) + 2 * d + 2 * a * d
    whole = drawn().state_dict()
    for site in (drawn(read=False), drawn(write=False)):
        assert all(torch.equal(value, whole[name]) for name, value in site.state_dict().items())
    net, control = network({}), network({"read": False})
    whole = net.state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in control.state_dict().items())


def test_tokens_that_do_not_read_are_the_same_for_every_sample_and_still_learn() -> None:
    net = network({"read": False})
    as_after_some_steps(net)
    seen = []
    tokens_of(net).edit = lambda site, tokens: (seen.append(tokens), tokens)[1]
    torch.stack(list(losses(net).values())).sum().backward()
    assert all(torch.equal(one, tokens_of(net).bank.tokens.expand_as(one)) for one in seen)
    assert tokens_of(net).bank.tokens.grad.abs().sum() > 0


def test_without_writing_nothing_of_the_tokens_reaches_a_loss() -> None:
    net, plain = network({"write": False}), network({"count": 0})
    found, expected = losses(net), losses(plain)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    torch.stack(list(found.values())).sum().backward()
    assert all(parameter.grad is None for parameter in tokens_of(net).parameters())


def test_an_adapter_is_a_residual_bottleneck_on_normed_features() -> None:
    torch.manual_seed(0)
    adapter = Adapter(6, 5, 4).double()
    features = torch.randn(2, 7, 6, dtype=torch.double)
    assert torch.equal(adapter(features), features)
    nn.init.normal_(adapter.up.weight)
    normed = F.layer_norm(features, (6,))
    expected = features + F.gelu(normed @ adapter.down.weight.T) @ adapter.up.weight.T
    torch.testing.assert_close(adapter(features), expected)


@pytest.mark.parametrize(("channels", "width", "attention_width"), [(48, 32, 8), (512, 256, 64), (2048, 256, 64)])
def test_an_adapter_has_as_many_parameters_as_the_exchange_that_it_stands_for(
    channels: int, width: int, attention_width: int
) -> None:
    adapter = Adapter(channels, width, attention_width)
    wanted = count(ExchangeSite(channels, width, attention_width, 1))
    assert adapter.exchange_parameters == wanted
    assert count(adapter) == 2 * channels * (adapter.bottleneck + 1)
    # A neuron more or less is 2C parameters: no other width is closer. With width a instead, all that tokens have
    # would be missing.
    assert abs(count(adapter) - wanted) <= channels
    assert adapter.bottleneck > attention_width


def test_a_network_of_adapters_has_no_tokens_and_starts_as_the_plain_one() -> None:
    net, plain = network({"adapter": True}), network({"count": 0})
    found, expected = losses(net), losses(plain)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert tokens_of(net).bank.tokens.numel() == 0
    assert net.site_names() == network({}).site_names()
    as_after_some_steps(net)
    torch.stack(list(losses(net).values())).sum().backward()
    assert all(p.grad.abs().sum() > 0 for site in tokens_of(net).sites.values() for p in site.parameters())


def test_an_adapter_treats_every_position_by_itself() -> None:
    net = network({"adapter": True}).eval()
    as_after_some_steps(net)
    site = tokens_of(net).sites["backbone/layer4"]
    features = torch.randn(2, 4, site.down.in_features)
    torch.testing.assert_close(site(features)[:, :1], site(features[:, :1]))
    assert not torch.equal(net.predict("s", batches()["s"]), network({"count": 0}).eval().predict("s", batches()["s"]))
