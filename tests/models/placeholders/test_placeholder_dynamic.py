"""Dynamic tokens and modality embeddings."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from placeholder_support import SPECS, as_after_some_steps, count, losses, network, tokens_of
from tests_support import batches, document
from torch import nn

from harness.errors import HarnessError
from harness.models.config import ModelConfig, PlaceholderConfig
from harness.models.network import MultiTaskNetwork
from harness.models.placeholders import DynamicStart, Placeholders
from harness.models.placeholders.ways import modality_of

SMALL = {"count": 2, "width": 4, "attention_width": 4, "heads": 1}


def test_an_offset_equals_its_formula_and_padding_has_no_part_in_the_mean() -> None:
    torch.manual_seed(0)
    start = DynamicStart({"a": 6}, tasks=3, tokens=2, width=4, hidden=5).double()
    nn.init.normal_(start.up.weight)
    features = torch.randn(2, 4, 6, dtype=torch.double)
    padding = torch.tensor([[False, False, False, True], [False] * 4])
    tasks = torch.tensor([2, 0])
    pooled = F.layer_norm(torch.stack([features[0, :3].mean(0), features[1].mean(0)]), (6,))
    joined = torch.cat([pooled, start.tasks.weight[tasks]], 1)  # [GAP(X); e_task], through one matrix
    matrix = torch.cat([start.pooled["a"].weight, start.task.weight], 1)
    hidden = F.gelu(joined @ matrix.T + start.task.bias)
    expected = (hidden @ start.hidden.weight.T + start.hidden.bias) @ start.up.weight.T
    torch.testing.assert_close(start("a", features, padding, tasks), expected.view(2, 2, 4))


def test_a_dynamic_start_has_the_parameters_that_it_states() -> None:
    c, t, tokens, d, h, e, r = (6, 3, 2, 4, 5, 16, 8)
    start = DynamicStart({"a": c, "b": c}, tasks=t, tokens=tokens, width=d, hidden=h)
    assert count(start) == 2 * c * (h + 2) + t * e + e * h + h + h * r + r + r * tokens * d


def test_fresh_dynamic_tokens_are_the_shared_ones_and_the_loss_reaches_the_offset() -> None:
    plain, dynamic = network({}), network({"dynamic": True})
    found = dynamic.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in plain.state_dict().items())
    for net in (plain, dynamic):
        for site in tokens_of(net).sites.values():
            nn.init.constant_(site.up.weight, 0.01)
    expected, found = losses(plain), losses(dynamic)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    torch.stack(list(found.values())).sum().backward()
    assert tokens_of(dynamic).dynamic.up.weight.grad.abs().sum() > 0


def test_samples_start_apart_by_their_features_and_by_their_task_and_only_once() -> None:
    torch.manual_seed(0)
    found = Placeholders(PlaceholderConfig(**SMALL, dynamic=True, read=False), {"a": 6, "b": 6}, ["s", "t"])
    as_after_some_steps(found)
    features = torch.randn(1, 5, 6).repeat(3, 1, 1)
    features[2] += torch.randn(5, 6)
    stream = found.begin({"s": 1, "t": 2})
    stream.exchange("a", features)
    first = stream.tokens
    assert not torch.allclose(first[0], first[1])  # the same image, another task
    assert not torch.allclose(first[1], first[2])  # the same task, another image
    stream.exchange("b", features)
    assert torch.equal(stream.tokens, first)
    assert list(found.dynamic.norms) == ["a"]  # made from the first site's features only


def test_rows_of_a_stream_keep_their_tasks_until_the_first_site() -> None:
    torch.manual_seed(0)
    found = Placeholders(PlaceholderConfig(**SMALL, dynamic=True, read=False), {"a": 6}, ["s", "t"])
    as_after_some_steps(found)
    features = torch.randn(2, 5, 6)
    whole = found.begin({"s": 1, "t": 1})
    whole.exchange("a", features)
    rows = found.begin({"s": 1, "t": 1}).rows(torch.tensor([1, 1]))
    rows.exchange("a", features[[1, 1]])
    torch.testing.assert_close(rows.tokens, whole.tokens[[1, 1]])


def test_a_question_without_an_image_starts_from_its_own_words() -> None:
    model = document(8)["model"]
    model["placeholders"]["dynamic"] = True
    model["heads"]["vqa"]["question_only"] = True
    torch.manual_seed(0)
    net = MultiTaskNetwork(ModelConfig.model_validate(model), SPECS)
    assert list(tokens_of(net).dynamic.norms) == ["backbone/layer3", "text"]
    as_after_some_steps(net)
    net.eval()
    batch = batches()["v"]
    found = net.predict("v", batch)
    assert torch.equal(net.predict("v", replace(batch, images=batch.images.flip(0))), found)
    assert not torch.equal(net.predict("v", replace(batch, words=batch.words.flip(0)))[0], found[0])


def test_the_same_images_are_encoded_for_each_task_that_starts_from_other_tokens() -> None:
    """Or the second task would get the first one's offset."""
    data = {"c": batches()["c"]}
    data["s"] = replace(batches()["s"], **{key: getattr(data["c"], key) for key in ("ids", "images", "sizes")})
    data["s"] = replace(data["s"], masks=torch.zeros(3, 64, 64, dtype=torch.int64))
    net = network({"dynamic": True}, sharing={"name": "hard"}).eval()
    as_after_some_steps(net)
    features = net.shared(data, net.placeholders)
    assert not torch.allclose(features["c"].stream.tokens, features["s"].stream.tokens)
    alone = net.shared({"s": data["s"]}, net.placeholders)
    torch.testing.assert_close(features["s"].stream.tokens, alone["s"].stream.tokens)


@pytest.mark.parametrize("mechanism", ["prefix_shallow", "prefix_deep"])
def test_dynamic_tokens_of_a_prefix_are_made_from_the_embedded_sequence(mechanism: str) -> None:
    options = {"backbone": {"name": "test_vit"}, "neck": {"channels": 32, "strides": [8, 16]}}
    net = network({"dynamic": True, "mechanism": mechanism}, **options)
    plain = network({"mechanism": mechanism}, **options)
    expected, found = losses(plain), losses(net)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    as_after_some_steps(net)
    losses(net)["c"].backward()
    assert tokens_of(net).dynamic.norms["backbone/blocks/0"].weight.grad.abs().sum() > 0


def test_a_pixel_border_has_no_features_to_be_dynamic_by() -> None:
    with pytest.raises(HarnessError, match="dynamic: a border of pixels comes before all features"):
        network({"dynamic": True, "placement": "input"})


@pytest.mark.parametrize(
    ("site", "modality"),
    [
        ("backbone.layer4", "image"),
        ("shapes-vqa/backbone.text", "image"),
        ("text", "text"),
        ("text.3", "text"),
        ("vqa.image", "fusion"),
        ("vqa.question.1", "fusion"),
    ],
)
def test_a_site_has_the_modality_of_what_is_met_there(site: str, modality: str) -> None:
    assert modality_of(site) == modality


def test_a_modality_is_added_where_it_is_met_and_not_carried_on() -> None:
    torch.manual_seed(0)
    config = PlaceholderConfig(**SMALL, modalities=True, read=False)
    found = Placeholders(config, {"backbone.x": 6, "text": 6, "vqa.image": 6})
    assert [count(found.modalities), sorted(found.modalities)] == [3 * 4, ["fusion", "image", "text"]]
    with torch.no_grad():
        for value, name in enumerate(("image", "text", "fusion"), start=1):
            found.modalities[name].fill_(value)
    seen = {}
    found.edit = lambda site, tokens: seen.setdefault(site, tokens)
    stream = found.begin(2)
    for site in ("backbone.x", "text", "vqa.image"):
        stream.exchange(site, torch.randn(2, 3, 6))
    # Carried on, they would add up to 1, 3 and 6.
    for value, site in enumerate(seen, start=1):
        torch.testing.assert_close(seen[site], found.bank.tokens.expand(2, 2, 4) + value)
    torch.testing.assert_close(stream.tokens, found.bank.tokens.expand(2, 2, 4))


def test_modalities_of_inserted_tokens_are_added_before_the_projection() -> None:
    found = Placeholders(PlaceholderConfig(**SMALL, mechanism="prefix_deep", modalities=True), {"text.0": 6})
    nn.init.ones_(found.modalities["text"])
    inserted = found.begin(2).prefix("text.0")
    torch.testing.assert_close(inserted[1], found.sites["text/0"](found.bank.tokens + 1))


def test_fresh_modalities_change_nothing_and_every_one_of_them_learns() -> None:
    plain, net = network({}), network({"modalities": True})
    for one in (plain, net):
        for site in tokens_of(one).sites.values():
            nn.init.constant_(site.up.weight, 0.01)
    expected, found = losses(plain), losses(net)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    found["v"].backward()
    assert all(vector.grad.abs().sum() > 0 for vector in tokens_of(net).modalities.values())
