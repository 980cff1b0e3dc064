"""Objectives of placeholder tokens: each by numbers that were computed by hand, or by an exact identity."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests_support import batches, document
from torch import Tensor, nn

from harness.errors import HarnessError
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.models.placeholders import Seen
from harness.models.step_tokens import StepTokens
from harness.submission import Submission
from harness.training.placeholders.objectives.alignment import distance, spread_hinge
from harness.training.placeholders.objectives.auxiliary import turned_images
from harness.training.placeholders.objectives.discriminator import reversed_gradient
from harness.training.placeholders.objectives.distilled import START, as_tokens, centres, following
from harness.training.placeholders.objectives.masked_features import visible_tokens
from harness.training.placeholders.objectives.objective import CURVE, add_objectives

SPECS = {
    "c": TaskSpec("classification", 5),
    "d": TaskSpec("detection", 3),
    "s": TaskSpec("segmentation", 4),
    "v": TaskSpec("vqa", 7, words=10),
}
TEACHER = {"teacher": {"name": "test_convnext", "random": True}}
ALL: dict[str, Any] = {
    "alignment": {},
    "auxiliary": {"target": "rotation"},
    "adversarial": {},
    "discriminator": {},
    "distilled": {**TEACHER, "from_task": "s"},
    "self_supervised": {},
}


def recipe(placeholders: dict[str, Any], backbone: str = "test_resnet", **changes: Any) -> Submission:
    raw = document()
    for task, name in zip(raw["tasks"], SPECS, strict=True):
        task["dataset"] = name
    raw["model"]["backbone"] = {"name": backbone}
    raw["model"]["heads"]["segmentation"] = {"name": "upernet", "channels": 16, "dropout": 0}
    raw["training"]["placeholders"] = placeholders
    for key, value in changes.items():
        section, _, rest = key.partition("__")
        raw[section] = raw[section] | {rest: value} if rest else value
    return Submission.model_validate(raw)


def build(placeholders: dict[str, Any], backbone: str = "test_resnet", seed: int = 0) -> MultiTaskNetwork:
    submission = recipe(placeholders, backbone)
    torch.manual_seed(seed)
    network = MultiTaskNetwork(submission.model, SPECS)
    add_objectives(network, submission)
    return network


def writing(network: MultiTaskNetwork) -> MultiTaskNetwork:
    """As after some steps: fresh sites write nothing, so that losses do not depend on tokens yet."""
    draw = torch.Generator().manual_seed(7)
    for name, parameter in network.named_parameters():
        if name.endswith("up.weight"):
            nn.init.normal_(parameter, std=0.1, generator=draw)
    return network


def objective(network: MultiTaskNetwork, name: str) -> Any:
    return network.objectives[name]  # type: ignore[index]


def tokens_of(ends: dict[str, Tensor], **others: Any) -> StepTokens:
    """Made-up tokens: `ends` are those of images, too."""
    some: Any = SimpleNamespace(ids=("a",))
    given: dict[str, Any] = {"batches": dict.fromkeys(ends, some), "images": ends, "ends": ends, "seen": {}}
    given |= {"placeholders": None, "encode": None, "shares": None}
    return StepTokens(**given | others)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_losses_weights_and_statistics_of_the_tasks_are_the_same_with_every_objective(backbone: str) -> None:
    plain, other = build({}, backbone), build(ALL, backbone)
    assert plain.objectives is None
    for name, value in plain.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    torch.manual_seed(1)
    expected = plain(batches())
    after = torch.rand(3)
    torch.manual_seed(1)
    found = other(batches())
    assert torch.equal(torch.rand(3), after)  # nothing was drawn from the stream of dropout
    terms = {name for name in found if name not in SPECS}
    assert terms == {CURVE + name for name in ALL if name != "adversarial"}
    for name in SPECS:
        assert torch.equal(found[name], expected[name])
    for name, value in plain.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_evaluation_has_no_objectives_and_their_weights_are_a_part_of_their_own() -> None:
    network = build(ALL)
    parts = network.parameters_by_part()
    assert sum(parts.values()) == sum(p.numel() for p in network.parameters())
    assert parts["placeholder objectives"] == sum(p.numel() for p in network.objectives.parameters())  # type: ignore[union-attr]
    assert set(network.eval()(batches())) == set(SPECS)
    with torch.no_grad():
        assert set(network.train()(batches())) == set(SPECS)


def test_every_weight_of_the_objectives_learns_and_no_teacher_is_stored() -> None:
    network = build(ALL)
    losses = network(batches())
    torch.stack([losses[name] for name in losses if name not in SPECS]).sum().backward()
    for name, parameter in network.objectives.named_parameters():  # type: ignore[union-attr]
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert network.placeholders is not None
    assert network.placeholders.bank.tokens.grad is not None
    stored = {name for name in network.state_dict() if name.startswith("objectives.distilled")}
    ours = {"map.weight", "map.bias", "mean", "deviation"}
    assert stored == {f"objectives.distilled.{name}" for name in ours}


# Alignment


def test_the_distance_is_squared_and_counts_every_pair_once() -> None:
    samples = [torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)]
    assert distance(samples) == 50
    assert distance([samples[1], samples[1]]) == 0
    assert distance(samples[:1]) == 0


def test_the_distance_leaves_out_what_means_of_few_samples_scatter() -> None:
    spread, apart, near = torch.tensor([[0.0], [2.0]]), torch.full((3, 1), 4.0), torch.full((3, 1), 1.5)
    assert distance([spread, apart]) == (4 - 1) ** 2 - 2 / 2
    assert distance([spread, near]) == 0  # 0.25 is less than two samples with a variance of 2 tell
    draws = torch.randn(2000, 2, 4, 8, generator=torch.Generator().manual_seed(0))
    draws[:, 1] += 10 / 8**0.5
    means = torch.stack([distance([one, other]) for one, other in draws])
    assert float(means.mean()) == pytest.approx(100, abs=1)  # the plain square of the means would give 100 + 8/4 + 8/4


def test_the_hinge_is_one_minus_the_unbiased_deviation_of_each_coordinate() -> None:
    samples = torch.tensor([[0.0, 0.0, 5.0], [1.0, 9.0, 5.0]])  # deviations sqrt(0.5 + ε), 6.4 and sqrt(ε)
    expected = ((1 - 0.5001**0.5) + 0 + (1 - 0.01)) / 3
    assert float(spread_hinge(samples)) == pytest.approx(expected, rel=1e-5)
    assert spread_hinge(samples[:1]) == 0


def test_alignment_weighs_the_distance_of_means_over_tokens_and_samples_and_the_hinges_sum() -> None:
    one = torch.tensor([[[0.0], [2.0]], [[0.0], [6.0]]])  # mean tokens 1 and 3, their mean 2
    other = torch.tensor([[[-1.0], [1.0]], [[0.0], [0.0]]])  # 0 and 0: no spread
    network = build({"alignment": {"weight": 0.5, "variance_weight": 2.0}})
    found = objective(network, "alignment")(tokens_of({"c": one, "d": other}))
    assert found.item() == pytest.approx(0.5 * (4 - 2 / 2) + 2 * (0 + 0.99), rel=1e-5)
    apart = objective(build({"alignment": {"variance_weight": 0}}), "alignment")
    assert apart(tokens_of({"c": one, "d": one.clone()})) == 0


def test_the_tasks_means_come_together_and_tokens_keep_what_they_say_of_images() -> None:
    torch.manual_seed(0)
    read = nn.Linear(8, 8)

    def apart() -> float:
        means = read(torch.stack([torch.zeros(8), torch.ones(8)])).detach()
        return float((means[0] - means[1]).square().sum())

    before = apart()
    train(0.0, read)
    assert apart() < before / 4
    assert float(read(torch.randn(1000, 8)).std(0).detach().min()) > 0.15  # under the plain square they fall to 0.02


def test_the_hinge_spreads_tokens_that_are_all_but_the_same_for_every_image() -> None:
    torch.manual_seed(0)
    read = nn.Linear(8, 8)
    with torch.no_grad():
        read.weight *= 1e-3
    train(1.0, read)
    deviation = read(torch.randn(1000, 8)).std(0).detach()
    assert float(deviation.min()) > 0.5


def train(variance_weight: float, read: nn.Linear) -> None:
    """Alignment alone, of tokens that are read from random images of two tasks whose means differ."""
    term = objective(build({"alignment": {"variance_weight": variance_weight}}), "alignment")
    torch.manual_seed(1)
    optimizer = torch.optim.Adam(read.parameters(), lr=0.01)
    for _ in range(400):
        images = {"c": torch.randn(16, 1, 8), "d": 1 + torch.randn(16, 1, 8)}
        loss = term(tokens_of({task: read(one) for task, one in images.items()}))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


# Discriminator


def test_a_reversed_gradient_is_the_gradient_times_minus_the_factor() -> None:
    value = torch.tensor([1.0, 2.0], requires_grad=True)
    out = reversed_gradient(value, 0.3)
    assert torch.equal(out, value)
    (out * torch.tensor([5.0, 7.0])).sum().backward()
    torch.testing.assert_close(value.grad, torch.tensor([-1.5, -2.1]))


def test_the_discriminator_learns_to_tell_tasks_apart_and_tokens_to_hide_it() -> None:
    term = objective(build({"discriminator": {"weight": 0.25}}), "discriminator")
    ends = {"c": torch.randn(3, 4, 16, requires_grad=True), "v": torch.randn(2, 4, 16, requires_grad=True)}
    labels = {"c": 0, "v": 3}
    plain = torch.stack(
        [
            nn.functional.cross_entropy(term.classifier(one.mean(1)), torch.full((len(one),), labels[task]))
            for task, one in ends.items()
        ]
    ).mean()
    weights = list(term.classifier.parameters())
    expected = torch.autograd.grad(plain, [*weights, *ends.values()])
    found = term(tokens_of(ends))
    assert found.item() == pytest.approx(plain.item())
    gradients = torch.autograd.grad(found, [*weights, *ends.values()])
    for number, (a, b) in enumerate(zip(gradients, expected, strict=True)):
        torch.testing.assert_close(a, b if number < len(weights) else -0.25 * b)


# Auxiliary task


def test_the_data_set_of_a_task_that_takes_anothers_images_is_the_others() -> None:
    tasks = list(recipe({}).model_dump()["tasks"])
    feeding = ("dataset", "batch_size", "image_size", "flip")
    tasks[3] = {**{key: tasks[0][key] for key in feeding}, "dataset": "v", "images_of": "c", "questions": 3}
    submission = recipe({"auxiliary": {"target": "dataset"}}, tasks=tasks)
    network = MultiTaskNetwork(submission.model, SPECS)
    add_objectives(network, submission)
    term = objective(network, "auxiliary")
    assert term.classifier[-1].out_features == 3
    nn.init.zeros_(term.classifier[-1].weight)
    with torch.no_grad():  # probabilities 1/4, 1/4 and 1/2
        term.classifier[-1].bias.copy_(torch.tensor([1.0, 1.0, 2.0]).log())
    found = term(tokens_of({"s": torch.randn(1, 4, 16), "v": torch.randn(3, 4, 16)}))
    # Mean over tasks, not over images: (log 2 + log 4) / 2, times the weight.
    assert found.item() == pytest.approx(0.1 * 1.5 * float(np.log(2)), rel=1e-5)


def test_images_are_turned_counterclockwise_and_others_than_squares_cut_to_their_centre() -> None:
    image = torch.arange(8, dtype=torch.uint8).view(1, 1, 2, 4).expand(4, 3, 2, 4)  # 0 1 2 3 / 4 5 6 7
    found = turned_images(image, torch.tensor([0, 1, 2, 3]))
    expected = [[[1, 2], [5, 6]], [[2, 6], [1, 5]], [[6, 5], [2, 1]], [[5, 1], [6, 2]]]
    assert found[:, 0].tolist() == expected
    assert image[0, 0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_every_image_is_turned_again_in_the_next_step_and_alike_in_every_division() -> None:
    term = objective(build({"auxiliary": {"target": "rotation"}}), "auxiliary")
    batch: Any = replace(batches()["c"], ids=tuple(map(str, range(64))), images=torch.zeros(64, 3, 8, 8).byte())
    _, first = term._turned(batch)
    assert first.unique().tolist() == [0, 1, 2, 3]
    assert torch.equal(term._turned(batch.rows(20, 64))[1], first[20:])
    term.step = 1
    assert not torch.equal(term._turned(batch)[1], first)


# Distillation


def test_the_start_keeps_the_distances_of_the_centres_up_to_one_factor() -> None:
    points = np.random.default_rng(0).normal(size=(6, 40)) + 100
    found = as_tokens(points, 16, np.random.default_rng(1))
    assert found.shape == (6, 16)
    assert np.sqrt(np.square(found).mean()) == pytest.approx(START)

    def apart(x: Any) -> Any:
        return np.linalg.norm(x[:, None] - x[None], axis=-1)[np.triu_indices(6, 1)]

    ratio = apart(found) / apart(points)
    assert ratio == pytest.approx(ratio[0], rel=1e-9)
    assert np.abs(found).min(0).max() > 0  # every coordinate has its share
    assert not as_tokens(np.ones((3, 5)), 4, np.random.default_rng(0)).any()
    # One token has no distances to keep, but a start.
    one = as_tokens(points[:1], 16, np.random.default_rng(1))
    assert np.sqrt(np.square(one).mean()) == pytest.approx(START)


def test_centres_are_the_means_of_clusters_and_need_as_many_images() -> None:
    features = np.array([[0.0, 0], [0, 2], [10, 0], [10, 2]])
    found = centres(features, 2, np.random.default_rng(0))
    assert sorted(found.tolist()) == [[0, 1], [10, 1]]
    with pytest.raises(HarnessError, match=r"distilled\.images: 4 images have no 5 centres"):
        centres(features, 5, np.random.default_rng(0))


def test_other_tasks_follow_mean_and_deviation_of_the_main_one_and_it_follows_nobody() -> None:
    main = torch.tensor([[0.0, 0.0], [2.0, 0.0]], requires_grad=True)  # mean 1, 0; deviation 1, 0
    other = torch.tensor([[1.0, 3.0], [1.0, 3.0]], requires_grad=True)  # mean 1, 3; deviation 0, 0
    found = following({"s": main, "c": other}, "s")
    assert found.item() == pytest.approx((9 + 1) / 2, rel=1e-3)
    found.backward()
    assert main.grad is None
    assert other.grad is not None


def test_tokens_start_from_the_teacher_and_predict_its_standardised_features() -> None:
    network = build({"distilled": {**TEACHER, "images": 12}})
    term = objective(network, "distilled")
    images = torch.randint(0, 256, (12, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))

    class Images:
        def __len__(self) -> int:
            return len(images)

        def batch(self, places: Any) -> Any:
            rows = [row for _, row in places]
            return replace(batches()["c"], ids=tuple(map(str, rows)), images=images[rows])

    before = {name: value.clone() for name, value in network.state_dict().items()}
    term.begin(network, {"c": Images(), "d": Images()})
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    ours = {f"objectives.distilled.{name}" for name in ("mean", "deviation")}
    assert changed == {"placeholders.bank.tokens"} | ours
    assert network.placeholders is not None
    start = network.placeholders.bank.tokens.detach().clone()
    assert float(start.square().mean().sqrt()) == pytest.approx(START, rel=1e-5)
    term.begin(network, {"c": Images(), "d": Images()})
    assert torch.equal(network.placeholders.bank.tokens, start)  # the same again
    features = term._teacher(Images().batch([(0, row) for row in range(12)]))
    wanted = (features - features.mean(0)) / features.std(0, correction=0)
    nn.init.zeros_(term.map.weight)
    nn.init.zeros_(term.map.bias)
    batch = Images().batch([(0, row) for row in range(12)])
    found = term(tokens_of({"c": torch.randn(12, 4, 16)}, batches={"c": batch}))
    assert found.item() == pytest.approx(0.5 * float(wanted.square().mean()), rel=1e-3)


# Self-supervision


def seen(network: MultiTaskNetwork, padding: Tensor | None = None, classes: int = 0) -> Seen:
    site = network.site_names()[1]
    assert network.placeholders is not None
    width = int(network.placeholders.sites[site.replace(".", "/")].down.in_features)  # type: ignore[union-attr, arg-type]
    return Seen(site, torch.randn(2, classes + 12, width), padding, (3, 4))


def test_half_of_the_positions_are_masked_anew_in_every_step_and_padding_never() -> None:
    network = build({"self_supervised": {}})
    term = objective(network, "self_supervised")
    padding = torch.zeros(2, 13, dtype=torch.bool)
    padding[1, -8:] = True
    found = term.mask(seen(network, padding, classes=1), ("a", "b"))
    assert found.sum(1).tolist() == [6, 2]
    assert not (found & padding[:, 1:]).any()
    assert torch.equal(term.mask(seen(network), ("x", "a"))[1], found[0])  # whatever it is batched with
    term.step = 1
    assert not torch.equal(term.mask(seen(network), ("a", "b"))[0], found[0])


def test_tokens_do_not_know_what_is_masked() -> None:
    network = build({"self_supervised": {}})
    assert network.placeholders is not None
    one = seen(network, classes=1)
    masked = torch.zeros(2, 12, dtype=torch.bool)
    masked[:, ::2] = True
    read = visible_tokens(network.placeholders, "c", one, masked)
    changed = one.features.clone()
    changed[:, 1:][masked] += 1
    changed[:, 0] += 1  # a class token has seen the whole image
    assert torch.equal(visible_tokens(network.placeholders, "c", replace(one, features=changed), masked), read)
    changed[:, 1:][~masked] += torch.randn_like(changed[:, 1:][~masked])
    assert not torch.equal(visible_tokens(network.placeholders, "c", replace(one, features=changed), masked), read)


def test_the_error_is_that_of_masked_positions_alone_against_normed_features() -> None:
    network = build({"self_supervised": {"weight": 0.3}})
    term = objective(network, "self_supervised")
    one = seen(network)
    features = one.features.clone()
    batch: Any = SimpleNamespace(ids=("a", "b"))
    features[~term.mask(one, batch.ids)] = 1.0  # constants are normed to 0, others to mean square 1
    nn.init.zeros_(term.out.weight)
    nn.init.zeros_(term.out.bias)
    features.requires_grad_()
    given = tokens_of({}, batches={"c": batch}, seen={"c": replace(one, features=features)})
    loss = term(replace(given, placeholders=network.placeholders))
    assert loss.item() == pytest.approx(0.3, rel=1e-3)
    nn.init.normal_(term.out.weight)
    term(replace(given, placeholders=network.placeholders)).backward()
    assert features.grad is None  # neither the target nor what is read
