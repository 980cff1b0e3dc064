"""Changing tokens on their way: every site is met, and what nothing reads changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests_support import batches, document
from torch import Tensor

from harness.analysis.tokens import Recording, changed, means, replaced, taken_from, zeroed
from harness.models.config import ModelConfig
from harness.models.network import MultiTaskNetwork, TaskSpec

SPECS = {
    "c": TaskSpec("classification", 5),
    "d": TaskSpec("detection", 3),
    "s": TaskSpec("segmentation", 4),
    "v": TaskSpec("vqa", 7, words=10),
}


def network(sharing: str = "hard", written: bool = True, **placeholders: Any) -> MultiTaskNetwork:
    model = document(4)["model"]
    model["sharing"] = {"name": sharing}
    model["placeholders"] |= placeholders
    torch.manual_seed(0)
    net = MultiTaskNetwork(ModelConfig.model_validate(model), SPECS).eval()
    for name, parameter in net.named_parameters():
        if written and name.startswith("placeholders") and name.endswith("up.weight"):
            torch.nn.init.normal_(parameter)
    return net


def recorded(net: MultiTaskNetwork, name: str) -> dict[tuple[str, int], Tensor]:
    seen = Recording()
    with changed(net, name, seen):
        net.predict(name, batches()[name])
    return seen.tokens


def logits(net: MultiTaskNetwork, change: Any = None) -> Tensor:
    if change is None:
        return net.predict("c", batches()["c"])
    with changed(net, "c", change):
        return net.predict("c", batches()["c"])


@pytest.mark.parametrize("sharing", ["hard", "single", "asymmetric", "customized", "cross_stitch", "mmoe"])
def test_every_site_of_a_task_is_met_in_every_architecture(sharing: str) -> None:
    net = network(sharing)
    own = getattr(net.shared, "sites_of", lambda name: net.shared.sites())  # type: ignore[union-attr]
    for name in SPECS:
        found = {site for site, _ in recorded(net, name)}
        assert set(own(name)) <= found <= set(net.site_names()), name


@pytest.mark.parametrize("way", [{"mechanism": "exchange"}, {"placement": "input"}, {"placement": "output"}])
def test_tokens_are_met_whatever_is_made_of_them(way: dict[str, str]) -> None:
    assert recorded(network(**way), "c")


@pytest.mark.parametrize("sharing", ["hard", "single", "cross_stitch"])
def test_changing_tokens_changes_the_output_where_they_are_read_and_nothing_where_not(sharing: str) -> None:
    for written in (True, False):
        net = network(sharing, written)
        average = means(recorded(net, "c"))
        for change in (zeroed(), zeroed(1), replaced(2, average), taken_from(recorded(net, "c"))):
            assert torch.equal(logits(net), logits(net, change)) != written


def test_the_hook_is_gone_afterwards_even_after_an_error() -> None:
    net = network()
    before = logits(net)
    with pytest.raises(ZeroDivisionError), changed(net, "c", zeroed()):
        raise ZeroDivisionError
    assert net.placeholders is not None
    assert net.placeholders.edit is None
    assert torch.equal(before, logits(net))


def test_the_mean_of_equal_tokens_is_that_token_to_the_bit() -> None:
    token = torch.randn(4, 6)
    assert torch.equal(means({("a", 0): token.repeat(1001, 1, 1)})["a", 0], token)


def test_one_token_is_replaced_and_no_other() -> None:
    tokens, by = torch.randn(3, 4, 2), torch.randn(4, 2)
    out = replaced(1, {("a", 0): by})(("a", 0), tokens)
    assert torch.equal(out[:, 1], by[1].expand(3, 2))
    assert torch.equal(out[:, [0, 2, 3]], tokens[:, [0, 2, 3]])
    assert torch.equal(zeroed(1)(("a", 0), tokens)[:, [0, 2, 3]], tokens[:, [0, 2, 3]])


def test_every_sample_gets_another_ones_tokens_over_all_batches() -> None:
    others = torch.arange(6.0).view(6, 1, 1)
    change = taken_from({("a", 0): others})
    got = [change(("a", 0), others[:4]), change(("b", 0), others[:4]), change(("a", 0), others[4:])]
    assert torch.cat([got[0], got[2]]).flatten().tolist() == [3, 4, 5, 0, 1, 2]
    assert torch.equal(got[1], others[:4])  # a site that is not among them


def test_with_columns_that_visit_a_site_in_turn_visits_are_told_apart_and_start_anew() -> None:
    net = network("cross_stitch")
    seen = Recording()
    with changed(net, "c", seen):
        for _ in range(2):
            net.predict("c", batches()["c"])
    assert {len(tokens) for tokens in seen.tokens.values()} == {6}
    assert {number for _, number in seen.tokens} == set(range(len(SPECS)))


def test_what_a_pass_ends_with_is_the_same_of_every_task_also_with_levels_and_modalities() -> None:
    net = network(levels=2, stages=2, modalities=True, read=False)
    for name, parameter in net.named_parameters():
        if "modalit" in name:
            torch.nn.init.normal_(parameter)
    ends = {name: net.trace(name, batches()[name])[2] for name in SPECS}
    for name, tokens in ends.items():
        assert tokens is not None
        rows = len(batches()[name].words) if name == "v" else len(batches()[name].ids)
        assert len(tokens) == rows
        torch.testing.assert_close(tokens[0], ends["c"][0])  # type: ignore[index]  # nothing was read
    assert network().trace("v", batches()["v"])[2] is not None
    assert network(count=0).trace("v", batches()["v"])[2] is None
