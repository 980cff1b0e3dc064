"""Placeholder samples in one step: no trace is left, parts are exact, and the adversarial change is adversarial."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests_support import batches, document
from torch import Tensor, nn

from harness.data.batches import Batch, VqaBatch
from harness.models.config import ModelConfig
from harness.models.network import PENALTY, MultiTaskNetwork, TaskSpec
from harness.training.balancing.base import Setting, build_balancer
from harness.training.config import TrainingConfig
from harness.training.engine import Engine
from harness.training.parts import differentiate
from harness.training.placeholders.samples import Samples, pop_samples
from harness.training.placeholders.samples_config import SamplesConfig
from harness.training.placeholders.views import direction

SPECS = {
    "c": TaskSpec("classification", 5, names=("disc", "ring", "box", "star", "bar_code")),
    "d": TaskSpec("detection", 3),
    "s": TaskSpec("segmentation", 4),
    "v": TaskSpec("vqa", 7, words=10),
}
KINDS = ["random", "distilled", "adversarial"]


def network(backbone: str = "test_convnext", **changes: Any) -> MultiTaskNetwork:
    """Without batch norm and dropout, unless asked for."""
    model = document()["model"]
    model["backbone"] = {"name": backbone}
    if backbone == "test_convnext":
        model["heads"]["segmentation"] = {"name": "upernet", "channels": 16, "dropout": 0}
    torch.manual_seed(0)
    net = MultiTaskNetwork(ModelConfig.model_validate(model | changes), SPECS)
    # Heads of their own random start say the same everywhere: let them have something to say.
    with torch.no_grad():
        for name, parameter in net.heads.named_parameters():
            if name.endswith("weight"):
                parameter.mul_(3)
    return net


def unlabelled(padded: bool = False) -> dict[str, Batch]:
    """The batches of the tests without their labels; of some images a part is padding."""
    found: dict[str, Batch] = {}
    for name, one in batches().items():
        plain = Batch(one.ids, one.images, one.sizes)
        found[name] = replace(one, targets=torch.zeros(3, 0)) if isinstance(one, VqaBatch) else plain
    if padded:
        for name in ("d", "s"):
            found[name] = replace(found[name], contents=torch.tensor([[64, 64], [32, 64]]))
    return found


def samples(kind: str, padded: bool = False, step: int = 3, **changes: Any) -> Samples:
    threshold = {} if kind == "adversarial" else {"threshold": 0.5}
    return Samples(unlabelled(padded), SamplesConfig(ratio=1, kind=kind, **threshold | changes), 0, step)  # type: ignore[arg-type]


def step(net: MultiTaskNetwork, kind: str, accumulation: int = 1, balancing: str = "equal", **changes: Any) -> Any:
    engine = Engine("32")
    config = TrainingConfig.model_validate({"steps": 1, "balancing": {"name": balancing}}).balancing
    balancer = build_balancer(config, Setting(dict.fromkeys(SPECS, 1.0)))
    net.zero_grad()
    own = samples(kind, **changes) if kind else None
    values = differentiate(net, engine, balancer, batches(), accumulation, samples=own)
    return values, {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_in_parts_has_the_losses_and_the_gradient_of_the_whole_one(kind: str) -> None:
    net = network()
    values, expected = step(net, kind, padded=True)
    again, found = step(net, kind, 2, padded=True)
    assert again == pytest.approx(values, rel=2e-4)
    largest = max(float(value.abs().max()) for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=2e-3, atol=1e-4 * largest, msg=name)


def test_parts_of_unequal_size_do_not_count_alike() -> None:
    """Or else the test before could not tell a mean weighed by images from a plain one."""
    net, whole = network(), samples("random")
    halves = whole.split(Engine("32"), 2)
    assert [len(part.batches["c"].ids) for part in halves] == [1, 2]
    assert [len(part.batches["v"].words) for part in halves] == [2, 1]  # type: ignore[attr-defined]
    shares = [(part.shares["c"], part.shares["v"]) for part in halves if part.shares is not None]
    assert shares == [(pytest.approx(1 / 3), pytest.approx(2 / 3)), (pytest.approx(2 / 3), pytest.approx(1 / 3))]
    losses = {name: float(value.detach()) for name, value in whole(net).items()}
    alike = sum(float(replace(part, shares=None)(net)["samples/c"].detach()) / 2 for part in halves)
    assert abs(alike - losses["samples/c"]) > 1e-3 * losses["samples/c"]


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_added_after_balancing_with_their_weight(kind: str) -> None:
    net = network()
    _, plain = step(net, "")
    net.zero_grad()
    told = samples(kind, weight=0.5)(net)
    torch.stack([value for name, value in told.items() if not name.endswith("/kept")]).sum().backward()
    own = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    for balancing in ("equal", "upgrad"):
        _, labelled = step(net, "", balancing=balancing) if balancing != "equal" else ({}, plain)
        values, found = step(net, kind, balancing=balancing, weight=0.5)
        assert {name for name in values if name.startswith("samples/")} == set(told)
        for name, value in found.items():
            expected = labelled.get(name, torch.zeros_like(value)) + own.get(name, torch.zeros_like(value))
            torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-5, msg=name)
    single = samples(kind)(net)
    assert float(single["samples/s"]) == pytest.approx(2 * float(told["samples/s"]), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_passes_leave_statistics_and_random_streams_as_they_were(kind: str) -> None:
    for changes in ({}, {"sharing": {"name": "dynamic_routing"}}, {"sharing": {"name": "cross_stitch"}}):
        net = network("test_resnet", **changes).train()
        before = {name: value.clone() for name, value in net.named_buffers()}
        stream = torch.get_rng_state()
        told = samples(kind)(net)
        assert torch.equal(torch.get_rng_state(), stream)
        torch.stack([value for name, value in told.items() if not name.endswith("/kept")]).sum().backward()
        after = dict(net.named_buffers())
        assert before.keys() == after.keys()
        assert all(torch.equal(after[name], value) for name, value in before.items())
        net(batches())
        assert any(
            not torch.equal(after[name], value) for name, value in before.items()
        )  # a labelled pass is remembered


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_step_asks_the_same_and_another_step_something_else(kind: str) -> None:
    net = network("test_resnet").train()  # with dropout and batch norm
    first, second, other = (samples(kind, step=number)(net) for number in (3, 3, 4))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(not torch.equal(first[f"samples/{task}"], other[f"samples/{task}"]) for task in SPECS)


def test_views_differ_in_the_image_alone_not_in_what_is_dropped() -> None:
    """A view that changes nothing: with draws of its own for each view, dropout alone would make a loss."""
    net = network("test_resnet").train()
    told = samples("adversarial", epsilon=1e-7)(net)
    assert all(abs(float(value)) < 1e-4 for value in told.values())


@pytest.mark.parametrize("task", list(SPECS))
def test_the_adversarial_change_does_more_than_a_random_one_of_the_same_size(task: str) -> None:
    net = network()
    one = samples("adversarial", epsilon=0.01)
    one = replace(one, batches={task: one.batches[task]})
    found = float(one(net)[f"samples/{task}"].detach())
    batch, apart = one.batches[task], []
    with torch.no_grad():
        clean = one._ask(net, {task: batch.images.float()})
        for number in range(8):
            change = 0.01 * 255 * direction(batch, "random", number)
            apart.append(
                float(one._apart(net, task, clean, one._ask(net, {task: batch.images.float() + change})).mean())
            )
    assert found > 1.5 * max(apart)


@pytest.mark.parametrize("task", list(SPECS))
def test_every_task_learns_from_them_down_to_the_first_layer_and_the_tokens(task: str) -> None:
    net = network()
    with torch.no_grad():  # fresh sites return features as they are, and tokens get no gradient then
        for name, parameter in net.named_parameters():
            if name.endswith(".up.weight"):
                nn.init.normal_(parameter, std=0.1)
    whole = samples("random")
    told = replace(whole, batches={task: whole.batches[task]})(net)
    assert float(told[f"samples/{task}/kept"]) > 0
    told[f"samples/{task}"].backward()
    assert net.placeholders is not None
    assert net.placeholders.bank.tokens.grad is not None
    assert net.placeholders.bank.tokens.grad.abs().max() > 0
    first = next(iter(net.shared.parameters()))  # type: ignore[union-attr]
    assert first.grad is not None
    assert first.grad.abs().max() > 0
    others = [name for name in SPECS if name != task]
    assert all(p.grad is None for name in others for p in net.heads[name].parameters())


def test_mixed_precision_does_not_lose_gradients_to_the_pass_without() -> None:
    """Autocast keeps casts of weights; those of a pass without gradients must not serve the pass with them."""
    net = network()
    gradients: list[dict[str, Tensor]] = []
    for precise in (True, False):
        net.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not precise):
            torch.stack(
                [v for name, v in samples("random")(net).items() if not name.endswith("/kept")]
            ).sum().backward()
        gradients.append({name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    moved = [name for name, value in gradients[0].items() if value.abs().max() > 1e-4]
    assert len(moved) > 50
    assert all(gradients[1][name].abs().max() > 0 for name in moved)


@pytest.mark.parametrize("heads", [{"detection": {"name": "faster_rcnn", "width": 16, "anchor_scale": 2}}])
def test_regions_of_faster_rcnn_are_compared_where_they_are_proposed(heads: dict[str, Any]) -> None:
    net = network(heads=document()["model"]["heads"] | heads)
    told = samples("random")(net)
    told["samples/d"].backward()
    assert float(told["samples/d"]) > 0


def test_what_they_tell_is_taken_out_of_the_losses_and_their_own_losses_are_added_up() -> None:
    told = {"samples/c": 2.0, "samples/c/kept": 0.25, "samples/d": 4.0}
    losses = {name: torch.tensor(value) for name, value in ({"c": 1.0} | told).items()}
    assert float(pop_samples(losses)) == 6  # type: ignore[arg-type]
    assert list(losses) == ["c"]
    assert pop_samples({"c": torch.tensor(1.0)}) is None


def test_a_penalty_of_the_architecture_stays_what_it_is() -> None:
    net = network(sharing={"name": "soft"})
    values, _ = step(net, "random", 2)
    assert values[PENALTY] == pytest.approx(float(net.shared.penalty(list(net.specs))), rel=1e-5)  # type: ignore[union-attr,operator]
