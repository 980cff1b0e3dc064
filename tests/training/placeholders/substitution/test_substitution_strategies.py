"""Substitution strategies: who is the source, how much is replaced, and what is learned on the way."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests_support import batches, document
from torch import Tensor

from harness.data.loading import Place, TaskData, TrainingOrder
from harness.errors import HarnessError
from harness.models.config import ModelConfig
from harness.models.features import Features
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.models.outputs import chosen
from harness.models.substitution import Substitution
from harness.run_data import build_network, open_data, task_data
from harness.submission import Submission
from harness.training.balancing.base import Setting as BalancingSetting
from harness.training.balancing.base import build_balancer
from harness.training.config import TrainingConfig
from harness.training.engine import Engine
from harness.training.parts import look_back
from harness.training.placeholders.adversarial import differentiate_with_adversary
from harness.training.placeholders.objectives.config import AdversarialConfig
from harness.training.placeholders.substitution.adaptive import Adaptive
from harness.training.placeholders.substitution.alignment import Alignment
from harness.training.placeholders.substitution.base import Setting
from harness.training.placeholders.substitution.cross_validation import CrossValidation
from harness.training.placeholders.substitution.gain_model import GainModel
from harness.training.placeholders.substitution.held_out import WithoutHeldOut, held_out
from harness.training.placeholders.substitution.progressive import Progressive
from harness.training.placeholders.substitution.random_source import RandomSource

SPECS = {
    "c": TaskSpec("classification", 5),
    "d": TaskSpec("detection", 3),
    "s": TaskSpec("segmentation", 4),
    "v": TaskSpec("vqa", 7, words=10),
}


def setting(steps: int = 100, count: int = 4, training: dict[str, Any] | None = None, **section: Any) -> Setting:
    model = document(count)["model"]
    model["backbone"] = {"name": "test_convnext"}
    model["heads"]["segmentation"] = {"name": "upernet", "channels": 16, "dropout": 0}
    torch.manual_seed(0)
    network = MultiTaskNetwork(ModelConfig.model_validate(model), SPECS)
    network.substitution = Substitution(network)
    config = TrainingConfig.model_validate(
        {"steps": steps, "placeholders": {"substitution": section}} | (training or {})
    )
    assert config.placeholders.substitution is not None
    return Setting(
        config=config.placeholders.substitution,
        training=config,
        network=network,
        engine=Engine("32"),
        pairs=network.substitution.pairs,
        data={},
        sizes=dict.fromkeys(SPECS, 2),
        leaders={},
        batches=dict.fromkeys(SPECS, steps),
        steps=steps,
        seed=0,
        shared_tokens=count > 0,
    )


def test_a_random_source_is_any_other_task_equally_often_and_never_the_task_itself_or_vqa() -> None:
    strategy = RandomSource(setting(strategy="random"))
    for target, among in {"c": "ds", "d": "cs", "s": "cd", "v": "cds"}.items():
        drawn = Counter(strategy.sources(step, target)[0] for step in range(600))
        assert set(drawn) == set(among)
        assert min(drawn.values()) > 0.8 * 600 / len(among)
    # Targets of one step draw for themselves, and a step's draw needs no step before it.
    together = [(strategy.sources(step, "c"), strategy.sources(step, "v")) for step in range(40)]
    assert len(set(together)) == 6
    assert RandomSource(setting(strategy="random")).sources(39, "c") == strategy.sources(39, "c")
    assert strategy.ratio(0) == strategy.ratio(99) == 0.15


def test_the_progressive_pool_grows_from_the_smallest_loss_and_the_ratio_with_it() -> None:
    strategy = Progressive(setting(strategy="progressive"))
    assert strategy.sources(0, "s") == ()
    for step in range(100):
        if step < 5:  # 5% of 100 steps; what comes later must not count
            assert strategy.pool(step) == []
        strategy.take({"c": 3.0 + step, "d": 10.0 - step, "s": 4.9 if step < 5 else 0.0, "v": 0.1}, 0.1)
    # Means of the first five: c 5, d 8, s 4.9; p = e / 50.
    pools = {step: "".join(strategy.pool(step)) for step in (5, 16, 17, 33, 34, 49, 50, 99)}
    assert pools == {5: "s", 16: "s", 17: "sc", 33: "sc", 34: "scd", 49: "scd", 50: "scd", 99: "scd"}
    assert strategy.sources(5, "s") == ()
    assert strategy.sources(5, "c") == ("s",)
    assert {strategy.sources(step, "s") for step in range(17, 34)} == {("c",)}
    assert {strategy.sources(step, "v") for step in range(34, 99)} == {("s",), ("c",), ("d",)}
    assert [strategy.ratio(step) for step in (0, 10, 25, 50, 99)] == pytest.approx([0, 0.06, 0.15, 0.3, 0.3])
    again = Progressive(setting(strategy="progressive"))
    again.load_state(strategy.state())
    assert again.pool(40) == strategy.pool(40)


def features(batch: Any, network: MultiTaskNetwork, name: str) -> Features:
    with torch.no_grad():
        ((_, found),) = network._encode({name: batch})
    assert found is not None
    return found


def test_folds_have_tasks_in_turn_and_a_task_is_never_its_own_source() -> None:
    strategy = CrossValidation(setting(strategy="cross_validation", folds=4))
    assert {target: "".join(strategy.sources(0, target)) for target in SPECS} == {
        "c": "ddsd",
        "d": "cssc",
        "s": "cdcc",
        "v": "cdsc",
    }
    assert set(strategy._heads) == {("c", 0), ("c", 2), ("c", 3), ("d", 0), ("d", 1), ("d", 3), ("s", 1), ("s", 2)}


def wide(name: str, network: MultiTaskNetwork) -> tuple[Any, Features]:
    """A batch of six images in several folds, and its features."""
    one: Any = batches()[name]
    torch.manual_seed(3)
    count = 6
    changes: dict[str, Any] = {
        "ids": tuple(f"image {number}" for number in range(count)),
        "images": torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8),
        "sizes": torch.tensor([[48, 80]] * count),
    }
    if name == "c":
        changes["labels"] = torch.arange(count) % 5
    elif name == "s":
        masks = torch.randint(0, 4, (count, 64, 64))
        masks[1, 7:] = 255  # terms are pixels, not images
        changes["masks"] = masks
    else:
        boxes = torch.tensor([[4.0, 4, 30, 30], [20, 20, 60, 44], [2, 2, 62, 62]])
        changes["boxes"] = tuple(boxes[: 1 + number % 3] for number in range(count))
        changes["labels"] = tuple(torch.tensor([0, 2, 1])[: 1 + number % 3] for number in range(count))
    batch = replace(one, **changes)
    return batch, features(batch, network, name)


@pytest.mark.parametrize("name", ["c", "d", "s"])
def test_a_copy_learns_nothing_from_the_images_of_its_fold(name: str) -> None:
    given = setting(strategy="cross_validation", folds=2)
    strategy = CrossValidation(given)
    batch, found = wide(name, given.network)
    folds = [strategy._folds(name, image) for image in batch.ids]
    assert set(folds) == {0, 1}
    fold = next(fold for source, fold in strategy._heads if source == name)
    inside = [row for row, one in enumerate(folds) if one == fold]
    other = dict(vars(batch))
    if name == "c":
        other["labels"] = batch.labels.clone()
        other["labels"][inside] = 4 - batch.labels[inside]
    elif name == "s":
        other["masks"] = batch.masks.clone()
        other["masks"][inside] = 3 - batch.masks[inside].clamp(max=3)
        other["masks"][batch.masks == 255] = 255
    else:
        other["labels"] = tuple(
            (labels + 1) % 3 if row in inside else labels for row, labels in enumerate(batch.labels)
        )

    def gradients(one: Any) -> list[Tensor]:
        strategy._gradients = {}
        strategy._learn(name, found, one, 1.0)
        return strategy._gradients[name, fold]

    first, second = gradients(batch), gradients(type(batch)(**other))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    # The head itself would learn from them.
    head: Any = given.network.heads[name]
    losses = [head.loss(replace(found, stream=None), one) for one in (batch, type(batch)(**other))]
    assert losses[0] != losses[1]


def test_copies_learn_once_in_a_step_that_is_taken_at_adversarial_tokens_too() -> None:
    found = []
    for config in (None, AdversarialConfig(epsilon=0.5)):
        given = setting(strategy="cross_validation", folds=2)
        strategy, network = CrossValidation(given), given.network
        assert network.placeholders is not None
        assert network.substitution is not None
        for name, one in network.placeholders.named_parameters():
            if name.endswith("up.weight"):
                torch.nn.init.normal_(one, std=0.1)  # what tokens hold is written, so that they have a gradient
        network.train()
        network.substitution.choice = choice = strategy.choice(0)
        balancer = build_balancer(given.training.balancing, BalancingSetting(dict.fromkeys(SPECS, 1.0)))
        values = differentiate_with_adversary(config, network, given.engine, balancer, batches(), 1)
        assert ("placeholder/adversarial" in values) == (config is not None)
        assert network.substitution.choice is choice
        found.append((strategy._gradients, strategy._modules().state_dict()))
    (once, state), (twice, other) = found
    assert once.keys() == twice.keys() != set()
    for key, gradients in once.items():
        assert all(torch.equal(a, b) for a, b in zip(gradients, twice[key], strict=True)), key
    assert all(torch.equal(value, other[name]) for name, value in state.items())


@pytest.mark.parametrize("name", ["c", "d", "s"])
def test_a_copys_gradient_is_that_of_the_loss_without_the_folds_terms_however_a_step_is_split(name: str) -> None:
    given = setting(strategy="cross_validation", folds=2)
    strategy = CrossValidation(given)
    batch, found = wide(name, given.network)
    head: Any = given.network.heads[name]
    key = next(key for key in strategy._heads if key[0] == name)
    kept = [row for row, image in enumerate(batch.ids) if strategy._folds(name, image) != key[1]]
    # By hand: the sum over the kept terms, over the number of all terms.
    from harness.data.selecting import select

    part = select(batch, kept)
    loss = head.loss(chosen(found, kept), part) * head.count(part) / head.count(batch)
    expected = torch.autograd.grad(loss, [p for p in head.parameters() if p.requires_grad], allow_unused=True)
    for pieces in ([(0, 6)], [(0, 1), (1, 4), (4, 6)]):
        strategy._gradients = {}
        for start, stop in pieces:
            rows = list(range(start, stop))
            some = batch.rows(start, stop)
            share = max(1, head.count(some)) / head.count(batch)
            strategy._learn(name, chosen(found, rows), some, share)
        for wanted, got in zip(expected, strategy._gradients[key], strict=True):
            wanted = torch.zeros_like(got) if wanted is None else wanted
            torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-5)


def test_copies_learn_beside_the_network_and_leave_its_gradient_and_random_streams_alone() -> None:
    given = setting(strategy="cross_validation", training={"gradient_clip": None})
    strategy = CrossValidation(given)
    network = given.network
    assert network.substitution is not None
    names = {name for name, _ in network.named_parameters()}
    before = {key: [p.clone() for p in head.parameters()] for key, head in strategy._heads.items()}
    found = []
    for teaching in (True, False):
        network.zero_grad()
        made = strategy.choice(0)
        network.substitution.choice = made if teaching else replace(made, learn=None)
        torch.manual_seed(1)
        sum(network(batches()).values()).backward()
        found.append(({n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}, torch.rand(1)))
    assert found[0][1] == found[1][1]
    assert found[0][0].keys() == found[1][0].keys()
    assert all(torch.equal(value, found[1][0][name]) for name, value in found[0][0].items())
    strategy.take({"c": 1.0, "d": 1.0, "v": 1.0}, 0.01)  # s rests
    for (source, _), old in zip(strategy._heads, before.values(), strict=True):
        after = strategy._heads[source, _].parameters()
        assert any(not torch.equal(a, b) for a, b in zip(old, after, strict=True)) == (source != "s")
    assert {name for name, _ in network.named_parameters()} == names


def test_alignment_is_linear_cka_added_up_from_parts() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(50, 6) + 3, torch.randn(50, 4)
    y = y + x[:, :4]
    a, b = (one - one.mean(0) for one in (x, y))
    expected = (b.T @ a).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm())

    def aligned(*parts: tuple[Tensor, Tensor]) -> float:
        found = Alignment()
        for part in parts:
            found.add(*part)
        return found.whole(Engine("32"))

    assert aligned((x, y)) == pytest.approx(float(expected), rel=1e-5)
    assert aligned((x[:7], y[:7]), (x[7:], y[7:])) == pytest.approx(float(expected), rel=1e-5)
    rotation = torch.linalg.qr(torch.randn(6, 6))[0]
    assert aligned((x, 5 * x @ rotation + 1)) == pytest.approx(1, rel=1e-4)
    assert aligned((x, torch.full((50, 2), 0.3))) == 0


def test_the_gain_model_finds_a_linear_relation_and_expects_nothing_at_first() -> None:
    model = GainModel(2)
    assert model.expect([3.0, -1.0]) == 0
    torch.manual_seed(0)
    for one in torch.randn(500, 2).tolist():
        model.learn(one, 0.5 - 2 * one[0] + one[1])
    assert model.expect([1.0, 1.0]) == pytest.approx(-0.5, abs=0.01)
    again = GainModel(2)
    again.load_state(model.state())
    assert again.expect([0.2, 0.1]) == model.expect([0.2, 0.1])
    # One observation x = (1, 2), y = 1 with λ = 0.1: w = x / (|x|² + 0.1), here with the constant.
    one = GainModel(1)
    one.learn([2.0], 1.0)
    assert one.expect([2.0]) == pytest.approx(5 / 5.1)


def submission(count: int = 4, **section: Any) -> Submission:
    raw = document(count)
    raw["model"]["backbone"] = {"name": "test_convnext"}
    raw["tasks"] = [one | {"image_size": 64} for one in raw["tasks"] if "vqa" not in one["dataset"]]
    raw["training"]["placeholders"] = {"substitution": {"strategy": "adaptive", "held_out": 0.25} | section}
    return Submission.model_validate(raw)


def adaptive(count: int = 4, **section: Any) -> tuple[Adaptive, dict[str, Any]]:
    """A strategy on the tiny suite, and a step's batches."""
    wanted = submission(count, **section)
    splits = open_data(wanted)
    torch.manual_seed(0)
    network = build_network(wanted, splits)
    network.train()
    data = {name: task_data(wanted, 0, splits, name, True) for name in splits.train}
    config = wanted.training.placeholders.substitution
    assert config is not None
    assert network.substitution is not None
    given = Setting(
        config=config,
        training=wanted.training,
        network=network,
        engine=Engine("32"),
        pairs=network.substitution.pairs,
        data=data,
        sizes={task.dataset: task.batch_size for task in wanted.tasks},
        leaders={},
        batches=dict.fromkeys(data, 100),
        steps=100,
        seed=0,
        shared_tokens=count > 0,
    )
    strategy = Adaptive(given)
    return strategy, {
        name: one.batch(next(iter(strategy.order(name, TrainingOrder(one, given.sizes[name])))))
        for name, one in data.items()
    }


@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize("count", [0, 4])
def test_a_gain_is_the_relative_fall_of_the_plain_held_out_loss_after_a_step_with_the_source(count: int) -> None:
    strategy, given = adaptive(count, every=2)
    network: Any = strategy.setting.network
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(".up.weight"):  # while these are 0, tokens have no gradient
                parameter.normal_(std=0.1)
    for _ in range(2):
        strategy.take(dict.fromkeys(given, 2.0), 0.1)
    made = strategy.choice(2)
    held = strategy._held_batches(1)
    gains = []
    for target in given:  # by hand
        start = {name: value.clone() for name, value in network.state_dict().items()}
        torch.manual_seed(1)
        before = look_back(network, strategy.setting.engine, {target: held[target]}, 1)[target]
        network.substitution.choice = made
        trained = [p for p in network.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(network(given)[target], trained, allow_unused=True)
        network.substitution.choice = None
        with torch.no_grad():
            for parameter, gradient in zip(trained, gradients, strict=True):
                if gradient is not None:
                    parameter -= 0.1 * gradient
        torch.manual_seed(1)
        after = look_back(network, strategy.setting.engine, {target: held[target]}, 1)[target]
        gains.append(1 - after / before)
        network.load_state_dict(start)
    torch.manual_seed(1)
    strategy.look(2, network, given, 0.1)
    sums = strategy._model.state()
    assert sums["products"][0, 0] == 3  # an observation of each target
    assert float(sums["targets"][0]) == pytest.approx(sum(gains), rel=1e-3)
    assert max(abs(gain) for gain in gains) > 1e-3
    # Ratios of the losses to the first ones are 1 at the first look; cosines are there, and CKA lies between 0 and 1.
    cosines, alignments, *ratios = (sums["products"][0, place] / 3 for place in range(1, 5))
    assert abs(float(cosines)) > 1e-6
    assert 0 < float(alignments) < 1
    assert [float(one) for one in ratios] == [1, 1]


@pytest.mark.usefixtures("tiny_suite")
def test_a_look_leaves_no_trace_and_comes_when_it_is_due() -> None:
    strategy, given = adaptive(every=3)
    network: Any = strategy.setting.network
    strategy.take(dict.fromkeys(given, 2.0), 0.1)
    start = {name: value.clone() for name, value in network.state_dict().items()}
    stream = torch.get_rng_state()
    for step in (0, 1, 2, 4):
        strategy.look(step, network, given, 0.1)
        assert strategy.points() == {}
    strategy.look(3, network, given, 0.1)
    assert set(strategy.points()) == {
        f"substitution/gain/{target}|{source}" for target, among in strategy.setting.pairs.items() for source in among
    }
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(torch.equal(value, start[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert network.substitution.choice is None


@pytest.mark.usefixtures("tiny_suite")
def test_the_source_of_the_largest_expected_gain_is_drawn_most_and_any_now_and_then() -> None:
    strategy, _ = adaptive(temperature=0.1, epsilon=0.2)
    (target, among), *_ = strategy.setting.pairs.items()

    def share(gains: tuple[float, float], epsilon: float) -> float:
        strategy._expected[target] = dict(zip(among, gains, strict=True))
        config = strategy.setting.config.model_copy(update={"epsilon": epsilon})
        strategy.setting = replace(strategy.setting, config=config)
        return Counter(strategy.sources(step, target)[0] for step in range(800))[among[0]] / 800

    # softmax(0.1 / 0.1, 0) = 1 / (1 + 1/e) = 0.731
    assert share((0.1, 0.0), 0.0) == pytest.approx(0.731, abs=0.05)
    assert share((0.0, 0.0), 0.0) == pytest.approx(0.5, abs=0.05)
    assert share((9.0, 0.0), 0.0) == 1
    assert share((9.0, 0.0), 0.2) == pytest.approx(0.9, abs=0.04)  # half of the free draws are its own


@pytest.mark.usefixtures("tiny_suite")
def test_held_out_images_are_never_trained_on_and_all_others_come_when_they_would() -> None:
    wanted = submission()
    splits = open_data(wanted)
    for name in splits.train:
        data = task_data(wanted, 0, splits, name, True)
        places = held_out(data, 0.25)
        plain, without = (iter(order) for order in orders(data, places))
        seen = set()
        for _ in range(20):  # several epochs of 24 images
            for (epoch, before), (same, after) in zip(next(plain), next(without), strict=True):
                assert epoch == same
                assert after == before or before in places
                seen.add(after)
        assert seen == set(range(24)) - set(places)


def orders(data: TaskData, places: list[int]) -> tuple[TrainingOrder, WithoutHeldOut]:
    order = TrainingOrder(data, 4)
    return order, WithoutHeldOut(order, places, len(data))


def test_an_image_that_is_held_out_is_replaced_by_the_next_that_is_not() -> None:
    order: list[list[Place]] = [[(0, 0), (0, 3)], [(1, 4), (1, 2)]]
    assert list(WithoutHeldOut(order, [3, 4], 5)) == [[(0, 0), (0, 0)], [(1, 0), (1, 2)]]


@pytest.mark.usefixtures("tiny_suite")
def test_tasks_of_the_same_images_hold_out_the_same_and_have_them_in_the_same_folds() -> None:
    from harness.training.placeholders.substitution.folds import Folds

    raw = document()
    leader = {"dataset": "shapes-segmentation", "batch_size": 4, "image_size": 64}
    raw["tasks"] = [leader, {"dataset": "shapes-classification", "images_of": leader["dataset"]}]
    wanted = Submission.model_validate(raw)
    splits = open_data(wanted)
    data = {name: task_data(wanted, 0, splits, name, True) for name in splits.train}
    first, second = data.values()
    assert held_out(first, 0.3) == held_out(second, 0.3)
    assert first.names != second.names
    folds = Folds(data, 5)
    names = list(data)
    assert [folds(names[0], image) for image in first.names] == [folds(names[1], image) for image in second.names]
    assert len({folds(names[0], image) for image in first.names}) > 2


@pytest.mark.usefixtures("tiny_suite")
def test_of_two_images_or_more_some_are_held_out_and_some_are_left() -> None:
    wanted = submission()
    splits = open_data(wanted)
    data = task_data(wanted, 0, splits, "shapes-classification", True)
    (first,) = held_out(data, 1e-6)
    several = held_out(data, 0.4)
    assert first in several
    assert 4 < len(several) < 16
    assert set(held_out(data, 0.2)) < set(several)
    assert len(held_out(data, 1.0)) == 23
    data.rows = np.array([0])
    with pytest.raises(HarnessError, match="adaptive holds out training images, and shapes-classification has 1; take"):
        held_out(data, 0.5)
