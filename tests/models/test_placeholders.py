"""Placeholder tokens: parameter counts, the exact no-op, the controls, and that every site fires once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests_support import batches, document
from torch import nn

from harness.errors import HarnessError
from harness.models.config import ModelConfig, PlaceholderConfig
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.models.placeholders import ExchangeSite, PlaceholderBank, Placeholders, TokenStream
from harness.submission import Submission

SPECS = {
    "c": TaskSpec("classification", 5),
    "d": TaskSpec("detection", 3),
    "s": TaskSpec("segmentation", 4),
    "v": TaskSpec("vqa", 7, words=10),
}


def network(count: int, seed: int = 0, placeholders: dict[str, Any] | None = None, **backbone: Any) -> MultiTaskNetwork:
    model = document(count)["model"]
    model["backbone"] |= backbone
    model["placeholders"] |= placeholders or {}
    torch.manual_seed(seed)
    return MultiTaskNetwork(ModelConfig.model_validate(model), SPECS)


def test_a_site_has_2c_a_plus_1_plus_2d_plus_4ad_parameters() -> None:
    c, d, a = 48, 32, 8
    site = ExchangeSite(c, d, a, heads=2)
    assert sum(p.numel() for p in site.parameters()) == 2 * c * (a + 1) + 2 * d + 4 * a * d


def test_a_fresh_site_returns_the_features_bit_for_bit_but_changes_the_tokens() -> None:
    torch.manual_seed(0)
    site = ExchangeSite(12, 8, 4, heads=2)
    features, tokens = torch.randn(2, 5, 12), torch.randn(2, 3, 8)
    written, read = site(features, tokens)
    assert torch.equal(written, features)
    assert not torch.equal(read, tokens)


def test_an_exchange_equals_its_formula_with_one_head() -> None:
    torch.manual_seed(1)
    site = ExchangeSite(6, 5, 4, heads=1).double()
    torch.nn.init.normal_(site.up.weight)
    x, z = torch.randn(1, 7, 6, dtype=torch.double), torch.randn(1, 3, 5, dtype=torch.double)

    def norm(t: torch.Tensor) -> torch.Tensor:
        return (t - t.mean(-1, keepdim=True)) / (t.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()

    u = norm(x) @ site.down.weight.T
    read = ((norm(z) @ site.read_query.weight.T) @ u.transpose(1, 2) / 4**0.5).softmax(-1) @ u
    z_expected = z + read @ site.read_out.weight.T
    key, value = (norm(z_expected) @ w.weight.T for w in (site.write_key, site.write_value))
    x_expected = x + ((u @ key.transpose(1, 2) / 4**0.5).softmax(-1) @ value) @ site.up.weight.T
    x_actual, z_actual = site(x, z)
    torch.testing.assert_close(x_actual, x_expected)
    torch.testing.assert_close(z_actual, z_expected)


def test_padding_is_not_read() -> None:
    torch.manual_seed(0)
    site = ExchangeSite(6, 5, 4, heads=2)
    features, tokens = torch.randn(1, 4, 6), torch.randn(1, 2, 5)
    padding = torch.tensor([[False, False, True, True]])
    changed = features.clone()
    changed[:, 2:] = 99.0
    assert torch.equal(site(features, tokens, padding)[1], site(changed, tokens, padding)[1])
    assert not torch.equal(site(features, tokens)[1], site(changed, tokens)[1])


def test_all_samples_start_from_one_parameter() -> None:
    bank = PlaceholderBank(4, 6)
    assert [name for name, _ in bank.named_parameters()] == ["tokens"]
    tokens = bank(3)
    assert tokens.shape == (3, 4, 6)
    assert all(torch.equal(sample, bank.tokens) for sample in tokens)


def test_a_site_that_is_missed_or_visited_twice_is_an_error() -> None:
    placeholders = Placeholders(PlaceholderConfig(count=2, width=4, attention_width=4, heads=1), {"a": 3, "b": 3})
    stream = placeholders.begin(1)
    stream.exchange("a", torch.randn(1, 2, 3))
    with pytest.raises(RuntimeError, match="a 1x, b 0x"):
        stream.check(["a", "b"])
    stream.exchange("b", torch.randn(1, 2, 3))
    stream.check(["a", "b"])
    stream.exchange("b", torch.randn(1, 2, 3))
    with pytest.raises(RuntimeError, match="b 2x"):
        stream.check(["a", "b"])


def test_a_backbone_whose_hooks_do_not_fire_is_noticed() -> None:
    model = document(4)["model"] | {"neck": {"channels": 32, "strides": [8]}}
    net = MultiTaskNetwork(ModelConfig.model_validate(model), SPECS)
    net.shared.trunk.backbone.body.layer3._forward_hooks.clear()  # type: ignore[union-attr]
    with pytest.raises(RuntimeError, match=r"exactly once .* backbone.layer3 0x"):
        net(batches())


def test_gradient_checkpointing_is_refused_where_it_would_pass_by_the_sites() -> None:
    net = network(4)
    net.shared.trunk.backbone.body.set_grad_checkpointing(True)  # type: ignore[union-attr]
    with pytest.raises(HarnessError, match=r"gradient checkpointing: .* switch it off"):
        net(batches())


def test_with_rows_per_task_every_task_has_tokens_of_its_own() -> None:
    net = network(8, placeholders={"sharing": "per_task"}).eval()  # in training, batch statistics join the tasks
    assert net.placeholders is not None
    assert net.placeholders.begin({"c": 2, "v": 1}).tokens.shape == (3, 2, 16)
    for site in net.placeholders.sites.values():
        nn.init.normal_(site.up.weight, std=0.1)
    losses = net(batches())
    for index, name in enumerate(SPECS):
        (gradient,) = torch.autograd.grad(losses[name], net.placeholders.bank.tokens, retain_graph=True)
        used = [row for row in range(8) if gradient[row].abs().sum() > 0]
        assert used == [2 * index, 2 * index + 1]


def test_rows_per_task_start_from_the_same_numbers_as_shared_ones() -> None:
    shared, apart = network(4).state_dict(), network(4, placeholders={"sharing": "per_task"}).state_dict()
    assert list(shared) == list(apart)
    assert all(torch.equal(shared[name], apart[name]) for name in shared)


def test_tokens_that_cannot_be_shared_out_among_the_tasks_are_refused() -> None:
    with pytest.raises(HarnessError, match="6 tokens cannot be shared out among 4 tasks; take a multiple of 4"):
        network(6, placeholders={"sharing": "per_task"})


def test_frozen_tokens_stay_as_they_were_drawn_while_their_sites_learn() -> None:
    net = network(4, placeholders={"frozen": True})
    assert net.placeholders is not None
    bank = net.placeholders.bank.tokens
    assert torch.equal(bank, network(4).placeholders.bank.tokens)  # type: ignore[union-attr]
    torch.stack(list(net(batches()).values())).sum().backward()
    assert bank.grad is None
    assert not bank.requires_grad
    assert all(site.up.weight.grad.abs().sum() > 0 for site in net.placeholders.sites.values())


def test_an_insertion_is_the_projected_tokens_of_each_sample() -> None:
    config = PlaceholderConfig(count=2, width=4, mechanism="prefix_shallow")
    placeholders = Placeholders(config, {"a.b": 6})
    stream = placeholders.begin(3)
    inserted = stream.prefix("a.b")
    expected = placeholders.bank.tokens @ placeholders.sites["a/b"].weight.T + placeholders.sites["a/b"].bias
    assert inserted.shape == (3, 2, 6)
    torch.testing.assert_close(inserted[2], expected)
    stream.check(["a.b"])


def test_at_the_output_each_task_has_a_vector_of_its_own_that_is_a_second_bias() -> None:
    net = network(4, placeholders={"placement": "output"})
    assert net.placeholders is not None
    assert net.site_names() == ["output.c", "output.d", "output.s", "output.v"]
    net.eval()
    before = net.predict("c", batches()["c"])
    nn.init.normal_(net.placeholders.sites["output/c"].weight)
    after = net.predict("c", batches()["c"])
    vector = net.placeholders.bank.tokens.mean(0) @ net.placeholders.sites["output/c"].weight.T
    torch.testing.assert_close(after - before, vector.expand(3, 5), rtol=1e-4, atol=1e-5)
    assert not torch.equal(after, before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"placement": "output", "mechanism": "prefix_deep"}, "placement output has no place for them"),
        ({"placement": "input", "mechanism": "prefix_deep"}, "enters at every block"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PlaceholderConfig(**changes)


@pytest.mark.parametrize("batch_norm", ["shared", "per_task"])
def test_a_fresh_network_with_tokens_gives_the_losses_of_its_control_bit_for_bit(batch_norm: str) -> None:
    plain, placeholder = network(0, batch_norm=batch_norm), network(4, batch_norm=batch_norm)
    losses = []
    for net in (plain, placeholder):
        torch.manual_seed(7)  # dropout
        losses.append(net(batches()))
    assert plain.placeholders is None
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in SPECS)


def test_the_control_has_the_same_initial_weights_and_no_others() -> None:
    plain, placeholder = network(0).state_dict(), network(4).state_dict()
    assert {name for name in placeholder if not name.startswith("placeholders.")} == set(plain)
    assert all(torch.equal(value, placeholder[name]) for name, value in plain.items())


def test_drawing_the_tokens_does_not_move_the_global_random_stream() -> None:
    states = []
    for count in (0, 4):
        network(count)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


@pytest.mark.parametrize("task", list(SPECS))
def test_gradients_of_every_task_reach_the_one_parameter(task: str) -> None:
    net = network(4)
    assert net.placeholders is not None
    for site in net.placeholders.sites.values():
        torch.nn.init.normal_(site.up.weight, std=0.1)  # as after the first steps
    net({task: batches()[task]})[task].backward()
    gradient = net.placeholders.bank.tokens.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_gradients_from_the_question_alone_reach_the_tokens() -> None:
    net = network(4)
    assert net.placeholders is not None
    for name, site in net.placeholders.sites.items():
        if name == "text":
            torch.nn.init.normal_(site.up.weight, std=0.1)
    net({"v": batches()["v"]})["v"].backward()
    assert net.placeholders.bank.tokens.grad.abs().sum() > 0  # type: ignore[union-attr]


def test_tokens_of_a_sample_do_not_depend_on_the_other_samples() -> None:
    net = network(4).eval()
    assert net.placeholders is not None
    for site in net.placeholders.sites.values():
        torch.nn.init.normal_(site.up.weight, std=0.1)
    batch = batches()["c"]
    whole = net.predict("c", batch)
    part = replace(batch, ids=batch.ids[:1], images=batch.images[:1], sizes=batch.sizes[:1])
    torch.testing.assert_close(net.predict("c", part), whole[:1])


def test_rows_of_a_stream_follow_their_samples_and_their_visits() -> None:
    stream = TokenStream({"a": ExchangeSite(3, 4, 4, 1)}, torch.arange(24.0).reshape(3, 2, 4))
    stream.exchange("a", torch.randn(3, 2, 3))
    rows = stream.rows(torch.tensor([2, 2, 0]))
    assert torch.equal(rows.tokens[0], stream.tokens[2])
    assert torch.equal(rows.tokens[2], stream.tokens[0])
    rows.check(["a"])


def test_sixteen_tokens_are_the_default() -> None:
    raw = document() | {"model": {"backbone": {"name": "resnet50"}}}
    assert Submission.model_validate(raw).model.placeholders.count == 16


@pytest.mark.parametrize("placeholders", [{}, {"placement": "output"}, {"placement": "input"}], ids=str)
def test_analyses_see_the_tokens_of_every_site_after_reading_and_may_replace_them(placeholders: dict[str, Any]) -> None:
    net = network(4, placeholders=placeholders).eval()
    for site in net.placeholders.sites.values():  # fresh sites write nothing
        if isinstance(site, ExchangeSite):
            nn.init.normal_(site.up.weight, std=0.1)
        elif placeholders.get("placement") == "output":
            nn.init.normal_(site.weight, std=0.1)
    batch = batches()["s"]
    plain = net.predict("s", batch)
    seen: dict[str, torch.Tensor] = {}

    def watch(site: str, tokens: torch.Tensor) -> torch.Tensor:
        seen[site] = tokens
        return tokens

    net.placeholders.edit = watch
    assert torch.equal(net.predict("s", batch), plain)
    assert seen.keys()
    assert set(seen) < set(net.site_names())
    assert all(tokens.shape == (len(batch.ids), 4, net.placeholders.bank.tokens.shape[1]) for tokens in seen.values())
    net.placeholders.edit = lambda site, tokens: tokens + 1
    assert not torch.equal(net.predict("s", batch), plain)
