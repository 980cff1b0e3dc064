"""Substitution: what is replaced by what, and what must not notice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests_support import batches, document
from torch import Tensor, nn

from harness.errors import HarnessError
from harness.models.config import ModelConfig
from harness.models.features import Features
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.models.outputs import probabilities, resized
from harness.models.sharing import SHARING
from harness.models.substitution import Choice, Substitution, draw_positions
from harness.training.engine import Engine
from harness.training.parts import split

SPECS = {
    "c": TaskSpec("classification", 5),
    "d": TaskSpec("detection", 3),
    "s": TaskSpec("segmentation", 4),
    "v": TaskSpec("vqa", 7, words=10),
}
SOURCES = {"c": ("s",), "d": ("s",), "s": ("d",), "v": ("c",)}


def build(count: int = 4, tasks: str = "cdsv", substituting: bool = True, **changes: Any) -> MultiTaskNetwork:
    model = document(count)["model"]
    for path, value in changes.items():
        section, _, key = path.partition("__")
        model[section] = {**model.get(section, {}), key: value} if key else value
    torch.manual_seed(0)
    network = MultiTaskNetwork(ModelConfig.model_validate(model), {name: SPECS[name] for name in tasks})
    if substituting:
        network.substitution = Substitution(network)
    return network


def choice(ratio: float = 0.25, step: int = 3, **more: Any) -> Choice:
    return Choice(**{"seed": 0, "step": step, "ratio": ratio, "sources": SOURCES} | more)


def replaced(network: MultiTaskNetwork, made: Choice) -> tuple[dict[str, Features], dict[str, Features]]:
    """Features by task before and after."""
    encoded = network._encode(batches())
    assert network.substitution is not None
    network.substitution.choice = made
    after = network.substitution(encoded, batches(), network.heads, None)
    network.substitution.choice = None
    return dict(encoded), dict(after)  # type: ignore[arg-type]


def test_a_share_of_the_positions_is_drawn_exactly_and_of_a_single_one_on_average() -> None:
    images = [str(number) for number in range(400)]
    maps, vectors = draw_positions((0, 1, "c"), images, [(10, 10), (1, 1)], 0.15)
    assert maps.shape == (400, 1, 10, 10)
    assert set(maps.sum((1, 2, 3)).tolist()) == {15}
    assert 0.1 < vectors.float().mean() < 0.2
    # Every position is drawn, none much more often than others.
    assert 0.07 < maps.float().mean(0).min() < maps.float().mean(0).max() < 0.23
    (uneven,) = draw_positions((0, 1, "c"), images, [(3, 3)], 0.15)  # 1.35 positions
    assert set(uneven.sum((1, 2, 3)).tolist()) == {1, 2}
    assert 1.25 < uneven.sum((1, 2, 3)).float().mean() < 1.45


def test_positions_follow_from_seed_step_task_and_image_not_from_the_place_in_a_batch() -> None:
    def drawn(*key: object, images: tuple[str, ...] = ("a", "b", "c")) -> Tensor:
        return draw_positions(key, images, [(8, 8)], 0.3)[0]

    first = drawn(0, 1, "c")
    assert torch.equal(drawn(0, 1, "c", images=("c", "a"))[0], first[2])
    for other in (drawn(1, 1, "c"), drawn(0, 2, "c"), drawn(0, 1, "d")):
        assert not torch.equal(other, first)
    assert not torch.equal(first[0], first[1])


def test_at_drawn_positions_stands_the_projected_output_and_elsewhere_nothing_changes() -> None:
    network = build()
    before, after = replaced(network, choice())
    sizes = [(level.shape[2], level.shape[3]) for level in before["s"].pyramid.values()]
    masks = draw_positions((0, 3, "s"), batches()["s"].ids, sizes, 0.25)
    assert network.substitution is not None
    own = list(before["s"].pyramid.values())
    outputs = resized(probabilities(network.heads["d"], before["s"], batches()["s"]), own)
    for level, old, mask, output in zip(after["s"].pyramid.values(), own, masks, outputs, strict=True):
        projected = network.substitution.projections["d"]["maps"](output)  # type: ignore[index]
        wide = mask.expand_as(level)
        assert torch.equal(level[wide], projected[wide])
        assert torch.equal(level[~wide], old[~wide])
        assert int(mask[0].sum()) == mask[0].numel() / 4
    assert torch.equal(after["s"].pooled, before["s"].pooled)


def test_only_what_the_head_reads_is_replaced() -> None:
    network = build()
    before, after = replaced(network, choice(ratio=1.0))
    assert not torch.equal(after["c"].pooled, before["c"].pooled)
    assert all(torch.equal(after["c"].pyramid[stride], level) for stride, level in before["c"].pyramid.items())
    assert list(after["v"].pyramid) == [8, 16]
    assert not torch.equal(after["v"].pyramid[8], before["v"].pyramid[8])
    assert after["v"].pyramid[16] is before["v"].pyramid[16]
    # A classifier has one opinion, the same everywhere.
    level = after["v"].pyramid[8]
    torch.testing.assert_close(level, level[..., :1, :1].expand_as(level))


def test_no_gradient_reaches_the_source_or_the_trunk_through_what_was_replaced() -> None:
    network = build(0, tasks="cds")
    assert network.substitution is not None
    network.substitution.choice = choice(ratio=1.0)
    given = {name: batches()[name] for name in "cds"}
    network(given)["s"].backward()  # all of its features come from d
    reached = {name.partition(".")[0] for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"heads", "substitution"}
    heads = {name.split(".")[1] for name, p in network.named_parameters() if "heads" in name and p.grad is not None}
    assert heads == {"s"}
    projections = network.substitution.projections
    assert {name for name, one in projections.items() if any(p.grad is not None for p in one.parameters())} == {"d"}


def test_asking_a_source_leaves_no_trace() -> None:
    network = build(4, heads__segmentation={"name": "upernet", "channels": 16, "dropout": 0.5})
    network.heads["s"].extra = nn.BatchNorm2d(3).eval()  # a part that is in another mode than the rest
    given = {name: batches()[name] for name in "cv"}
    state = {name: value.clone() for name, value in network.heads.state_dict().items()}
    modes = [module.training for module in network.modules()]
    assert network.substitution is not None
    ends, losses = [], []
    for made in (None, choice(sources={"c": ("s",), "v": ("d",)})):
        network.substitution.choice = made
        torch.manual_seed(5)
        losses.append(network(given))
        ends.append(torch.get_rng_state())
    assert torch.equal(*ends)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in network.heads.state_dict().items())
    assert not torch.equal(losses[0]["v"], losses[1]["v"])


def test_outputs_are_probabilities_softmax_where_one_class_is_right_and_sigmoid_where_any_number_are() -> None:
    network = build()
    before, _ = replaced(network, choice())
    for name, sums in (("c", True), ("s", True), ("d", False)):
        for one in probabilities(network.heads[name], before["d"], batches()["d"]):
            assert one.min() >= 0
            assert one.max() <= 1
            assert torch.allclose(one.sum(1), torch.ones(())) is sums
            assert not one.requires_grad


def test_a_larger_map_is_averaged_and_a_smaller_one_interpolated() -> None:
    fine = torch.tensor([[[[0.0, 2, 4, 6], [2, 4, 6, 8], [0, 0, 1, 1], [0, 0, 1, 1]]]])
    (down,) = resized([fine], [torch.zeros(1, 7, 2, 2)])
    assert down.tolist() == [[[[2, 6], [0, 1]]]]
    (one,) = resized([fine], [torch.zeros(1, 7, 1, 1)])
    assert one.item() == 2.25
    (up,) = resized([torch.tensor([[[[3.0]]]])], [torch.zeros(1, 7, 2, 3)])
    assert up.tolist() == [[[[3.0] * 3] * 2]]
    coarse = torch.ones(1, 1, 2, 2)
    near = resized([fine, coarse], [torch.zeros(1, 7, 4, 4), torch.zeros(1, 7, 2, 2)])
    assert near[0] is fine
    assert near[1] is coarse


def test_in_evaluation_the_network_is_the_plain_one() -> None:
    network, plain = build().eval(), build(substituting=False).eval()
    common = plain.state_dict()
    assert {name for name in network.state_dict() if name not in common} == {
        name for name in network.state_dict() if name.startswith("substitution.")
    }
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in common.items())
    assert network.substitution is not None
    network.substitution.choice = choice(ratio=1.0)
    for name, batch in batches().items():
        a, b = network.predict(name, batch), plain.predict(name, batch)
        assert all(torch.equal(x["boxes"], y["boxes"]) for x, y in zip(a, b, strict=True)) if name == "d" else True
        assert name == "d" or torch.equal(a, b)
        assert torch.equal(network({name: batch})[name], plain({name: batch})[name])


def test_its_weights_are_a_part_of_their_own_and_drawn_beside_all_others() -> None:
    network = build()
    # Of c, s to maps (32) and of s, d to the pooled feature: 5, 4 and 3 classes.
    width = network.shared.shape.pooled_width  # type: ignore[union-attr]
    expected = 32 * (5 + 1) + (32 + width) * (4 + 1) + (32 + width) * (3 + 1)
    assert network.parameters_by_part()["substitution"] == expected
    assert sum(network.parameters_by_part().values()) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("tasks", "changes", "pairs"),
    [
        ("cdsv", {}, {"c": "ds", "d": "cs", "s": "cd", "v": "cds"}),
        ("cv", {}, {"v": "c"}),
        ("dv", {"heads__vqa": {"question_only": True, "stride": 8}}, None),
        ("c", {}, None),
        ("cs", {"sharing": {"name": "single"}}, {"s": "c"}),
        ("cds", {"sharing": {"name": "hard", "taps": "hierarchical", "depths": {"c": 8}}}, {"d": "cs", "s": "cd"}),
        ("cs", {"heads__detection": {"name": "faster_rcnn"}}, {"c": "s", "s": "c"}),
    ],
)
def test_a_source_is_a_head_that_finds_what_it_reads(tasks: str, changes: Any, pairs: Any) -> None:
    if pairs is None:
        with pytest.raises(HarnessError, match="no task has another one whose output could stand for its features"):
            build(0, tasks, **changes)
        return
    network = build(0, tasks, **changes)
    assert network.substitution is not None
    assert {target: "".join(sources) for target, sources in network.substitution.pairs.items()} == pairs


def test_a_head_without_weights_is_no_source() -> None:
    tower = {"layers": 2, "width": 64, "head_width": 32, "image_size": 64}
    model = document(0)["model"]
    model["backbone"] = {
        "library": "open_clip",
        "name": "ViT-S-16",
        "options": {"embed_dim": 24, "vision_cfg": tower, "text_cfg": {"layers": 2, "width": 64, "heads": 2}},
    }
    model["heads"] = {"classification": {"name": "zero_shot"}}
    specs = {"c": TaskSpec("classification", 5, names=tuple("abcde")), "s": SPECS["s"]}
    network = MultiTaskNetwork(ModelConfig.model_validate(model), specs)
    network.substitution = Substitution(network)
    assert network.substitution.pairs == {"c": ("s",)}
    network.substitution.choice = choice(ratio=1.0, sources={"c": ("s",)})
    losses = network({name: batches()[name] for name in "cs"})
    losses["c"].backward()
    assert network.substitution.projections["s"]["pooled"].weight.grad.any()  # type: ignore[index,union-attr]


@pytest.mark.parametrize("head", ["fcos", "faster_rcnn"])
@pytest.mark.parametrize("sharing", SHARING)
def test_every_architecture_trains_with_it_and_no_site_of_the_tokens_fires_twice(sharing: str, head: str) -> None:
    network = build(4, sharing={"name": sharing}, heads__detection={"name": head})
    assert network.substitution is not None
    sources = {target: (among[-1],) for target, among in network.substitution.pairs.items()}
    network.substitution.choice = choice(sources=sources)
    sum(network(batches()).values()).backward()
    used = {source for (source,) in sources.values()}
    for name, one in network.substitution.projections.items():
        assert any(p.grad is not None and p.grad.any() for p in one.parameters()) == (name in used)


@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_parts_of_a_step_have_the_losses_and_gradients_of_the_whole(ratio: float) -> None:
    network = build(4, backbone={"name": "test_convnext"})  # no batch norm, which makes a batch more than its images
    network.heads["s"].head[1] = nn.Identity()  # type: ignore[index,operator]
    network.heads["s"].head[3] = nn.Identity()  # type: ignore[index,operator]
    assert network.substitution is not None
    network.substitution.choice = choice(ratio=ratio)
    found = []
    for accumulation in (1, 2):
        network.zero_grad()
        total = dict.fromkeys(SPECS, 0.0)
        for part in split(network, Engine("32"), batches(), accumulation):
            losses = network(*part)
            torch.stack(list(losses.values())).sum().backward()
            total = {name: total[name] + loss.item() for name, loss in losses.items()}
        found.append((total, {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}))
    (whole, gradients), (parts, others) = found
    assert parts == pytest.approx(whole, rel=1e-5)
    assert others.keys() == gradients.keys()
    largest = max(float(value.abs().max()) for value in gradients.values())
    for name, value in gradients.items():
        torch.testing.assert_close(others[name], value, rtol=1e-3, atol=1e-6 * largest, msg=name)


def test_each_fold_is_asked_of_its_own_head() -> None:
    network = build(0)
    assert network.substitution is not None

    class Says(nn.Module):
        exclusive = False

        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = value

        def outputs(self, features: Features, batch: Any) -> tuple[Tensor, ...]:
            assert len(batch.ids) == len(features.pooled)
            return (torch.full((len(batch.ids), 4, 2, 2), self.value),)

    folds = {"0": 1, "1": 0, "2": 2}  # of the three images of c
    made = choice(
        ratio=1.0,
        sources={"c": ("s", "s", "d")},
        fold=lambda target, image: folds[image],
        heads={("s", 0): Says(0.0), ("s", 1): Says(2.0), ("d", 2): network.heads["d"]},
    )
    before, after = replaced(network, made)
    projection = network.substitution.projections["s"]["pooled"]  # type: ignore[index]
    for row, logit in ((0, 2.0), (1, 0.0)):
        expected = projection(torch.full((1, 4, 1, 1), logit).sigmoid())[0, :, 0, 0]
        torch.testing.assert_close(after["c"].pooled[row], expected)
    detections = resized(
        probabilities(network.heads["d"], before["c"], batches()["c"]), [before["c"].pooled[:, :, None, None]]
    )[0]
    expected = network.substitution.projections["d"]["pooled"](detections)[2, :, 0, 0]  # type: ignore[index]
    torch.testing.assert_close(after["c"].pooled[2], expected)
