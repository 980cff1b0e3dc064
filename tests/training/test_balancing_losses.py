"""Methods that weigh losses, by numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from harness.data.transforms import derive_seed
from harness.training.balancing import BALANCING
from harness.training.balancing.base import Balancer, Setting, build_balancer
from harness.training.config import TrainingConfig

WEIGHING = ["equal", "manual", "uncertainty", "imtl_l", "log", "rlw", "dwa", "dtp", "gradnorm", "famo"]
LOSSES = {"a": 2.0, "b": 0.5, "c": 1.0}


def make(name: str, tasks: str = "abc", seed: int = 0, epoch: int = 2, **options: Any) -> Balancer:
    config = TrainingConfig.model_validate({"steps": 1, "balancing": {"name": name} | options}).balancing
    return build_balancer(config, Setting(dict.fromkeys(tasks, 1.0), seed, epoch))


def tensors(losses: dict[str, float]) -> dict[str, torch.Tensor]:
    return {task: torch.tensor(loss) for task, loss in losses.items()}


def weights(method: Balancer, losses: dict[str, float] = LOSSES) -> dict[str, float]:
    return {task: float(weight) for task, weight in method.weigh(tensors(losses)).items()}


def walk(method: Balancer, steps: int) -> None:
    """Some steps with losses that fall at different rates."""
    for step in range(steps):
        losses = {task: loss * (1 + place) ** (-step / 5) for place, (task, loss) in enumerate(sorted(LOSSES.items()))}
        losses = {task: losses[task] for task in method.tasks}
        method.see({task: 1.0 + place for place, task in enumerate(sorted(losses))}, losses)
        method.judge({task: 0.2 + 0.1 * place for place, task in enumerate(sorted(losses))})
        method.observe(losses)
        method.look_back({task: loss * 0.9 if task == "a" else loss * 0.99 for task, loss in losses.items()})


def test_logarithms_weigh_by_one_over_the_loss_so_a_losss_scale_does_not_matter() -> None:
    method = make("log")
    assert method(tensors(LOSSES)).item() == pytest.approx(math.log(2) + math.log(0.5))
    assert weights(method) == pytest.approx({"a": 0.5, "b": 2.0, "c": 1.0})
    x = torch.tensor(3.0, requires_grad=True)
    (plain,) = torch.autograd.grad(method({"a": x**2, "b": 5 * x}), x)
    (scaled,) = torch.autograd.grad(method({"a": 1000 * x**2, "b": 0.01 * x}), x)
    assert scaled.item() == pytest.approx(plain.item(), rel=1e-6)
    assert plain.item() == pytest.approx(2 / 3 + 1 / 3)


def test_a_loss_of_zero_has_a_finite_logarithm_and_no_gradient() -> None:
    assert weights(make("log"), {"a": 0.0, "b": 0.5}) == {"a": 0.0, "b": 2.0}


def test_imtl_l_pays_the_whole_of_its_scale_and_settles_where_every_scaled_loss_is_one() -> None:
    method: Any = make("imtl_l")
    with torch.no_grad():
        for task, value in zip("abc", (1.0, -1.0, 0.0), strict=True):
            method.log_scale[task].fill_(value)
    total = method(tensors(LOSSES))
    assert total.item() == pytest.approx(2 * math.e - 1 + 0.5 / math.e + 1 + 1)
    total.backward()
    # exp(s) L - 1; half the 1 is uncertainty weighting's, and no 1 at all drives every scale to zero.
    slopes = [s.grad.item() for s in method.log_scale.values()]
    assert slopes == pytest.approx([2 * math.e - 1, 0.5 / math.e - 1, 0.0], rel=1e-6, abs=1e-6)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.2)
    for _ in range(300):
        optimizer.zero_grad()
        method(tensors(LOSSES)).backward()
        optimizer.step()
    assert {task: weight * LOSSES[task] for task, weight in weights(method).items()} == pytest.approx(
        dict.fromkeys("abc", 1.0), rel=1e-4
    )


@pytest.mark.parametrize("name", ["uncertainty", "imtl_l"])
def test_a_losss_scale_leaves_no_trace_where_learned_scales_have_settled(name: str) -> None:
    found = []
    for scale in (1.0, 7.0):
        method = make(name)
        losses = {task: loss * (scale if task == "a" else 1) for task, loss in LOSSES.items()}
        optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
        for _ in range(1000):
            optimizer.zero_grad()
            method(tensors(losses)).backward()
            optimizer.step()
        found.append({task: weight * losses[task] for task, weight in weights(method, losses).items()})
    assert found[1] == pytest.approx(found[0], rel=1e-4)


def test_random_weights_sum_to_the_number_of_tasks_and_are_the_softmax_of_normals() -> None:
    method = make("rlw", seed=5)
    first = weights(method)
    assert sum(first.values()) == pytest.approx(3)  # not 1
    drawn = np.array([np.random.default_rng(derive_seed("rlw", 5, 0, task)).normal() for task in "abc"])
    assert list(first.values()) == pytest.approx(list(3 * np.exp(drawn) / np.exp(drawn).sum()), rel=1e-6)
    assert sum(weights(method, {"a": 1.0, "c": 1.0}).values()) == pytest.approx(2)
    method.observe(LOSSES)
    assert weights(method) != pytest.approx(first, rel=1e-2)
    assert weights(make("rlw", seed=6)) != pytest.approx(first, rel=1e-2)


def test_random_weights_have_their_own_stream() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    method = make("rlw")
    method(tensors(LOSSES))
    method.observe(LOSSES)
    method(tensors(LOSSES))
    assert torch.equal(torch.rand(3), expected)


def test_on_average_random_weights_are_equal() -> None:
    method = make("rlw", tasks="ab")
    total = 0.0
    for _ in range(2000):
        total += weights(method, {"a": 1.0, "b": 1.0})["a"]
        method.observe({})
    assert total / 2000 == pytest.approx(1.0, abs=0.04)


def test_dwa_compares_means_of_epochs_not_steps() -> None:
    method = make("dwa", tasks="ab", epoch=2)
    for a, b in [(4.0, 4.0), (2.0, 2.0), (2.0, 5.0), (1.0, 1.0)]:  # means 3 and 3, then 1.5 and 3
        assert weights(method, {"a": 9.0, "b": 9.0}) == {"a": 1.0, "b": 1.0}  # the first two epochs
        method.observe({"a": a, "b": b})
    share = 1 / (1 + math.exp((1.0 - 0.5) / 2))
    expected = {"a": 2 * share, "b": 2 * (1 - share)}
    assert weights(method, {"a": 9.0, "b": 9.0}) == pytest.approx(expected)
    method.observe({"a": 100.0, "b": 0.1})  # in the middle of an epoch nothing changes
    assert weights(method, {"a": 9.0, "b": 9.0}) == pytest.approx(expected)
    step = 1 / (1 + math.exp((0.2 - 0.5) / 2))  # what the last two steps, 2 -> 1 and 5 -> 1, would have given
    assert abs(expected["a"] - 2 * step) > 0.1


def test_dwas_temperature_and_epoch_are_options() -> None:
    config = TrainingConfig.model_validate({"steps": 1, "balancing": {"name": "dwa", "temperature": 0.5, "epoch": 1}})
    short = build_balancer(config.balancing, Setting({"a": 1.0, "b": 1.0}, epoch=100))
    short.observe({"a": 1.0, "b": 1.0})
    short.observe({"a": 0.5, "b": 1.0})
    share = 1 / (1 + math.exp((1.0 - 0.5) / 0.5))
    assert weights(short, {"a": 1.0, "b": 1.0})["a"] == pytest.approx(2 * share)


def test_a_task_that_rested_for_an_epoch_counts_as_one_that_does_not_change() -> None:
    method = make("dwa", tasks="ab", epoch=1)
    method.observe({"a": 2.0})
    method.observe({"a": 1.0, "b": 3.0})
    share = 1 / (1 + math.exp((1.0 - 0.5) / 2))
    assert weights(method, {"a": 1.0, "b": 1.0})["a"] == pytest.approx(2 * share)


def test_dtp_gives_weight_to_what_does_badly_by_a_moving_average_within_bounds() -> None:
    method = make("dtp", tasks="ab", gamma=2, smoothing=0.5)
    assert weights(method, {"a": 1.0, "b": 1.0}) == {"a": 1.0, "b": 1.0}  # nothing is known yet
    method.judge({"a": 0.4, "b": 1.0})
    expected = {"a": -(0.6**2) * math.log(0.4), "b": -(0.01**2) * math.log(0.99)}
    assert weights(method, {"a": 9.0, "b": 0.1}) == pytest.approx(expected)  # whatever the losses are
    method.judge({"a": 0.8})
    assert weights(method, {"a": 9.0})["a"] == pytest.approx(-(0.4**2) * math.log(0.6))
    poor = make("dtp", tasks="ab")
    poor.judge({"a": 0.0, "b": 0.5})
    assert weights(poor, {"a": 1.0, "b": 1.0})["a"] == pytest.approx(-0.99 * math.log(0.01))


def test_gradnorm_moves_weights_against_the_sign_of_what_a_norm_has_too_much() -> None:
    method = make("gradnorm", tasks="ab", alpha=1.0, learning_rate=0.1)
    start = {"a": 1.0, "b": 1.0}
    method.see({"a": 3.0, "b": 1.0}, start)
    # G = 3 and 1, r = 1 and 1, both targets 2: Adam's first step is its rate, a down and b up; the sum stays 2.
    assert weights(method, start) == pytest.approx({"a": 0.9, "b": 1.1}, rel=1e-5)
    assert sum(weights(method, start).values()) == pytest.approx(2)


def test_gradnorms_target_follows_the_rate_of_learning_and_is_a_constant() -> None:
    method: Any = make("gradnorm", tasks="ab", alpha=2.0)
    method.see({"a": 1.0, "b": 1.0}, {"a": 4.0, "b": 1.0})  # only L(0) is taken, G is on target
    assert weights(method, {"a": 1.0, "b": 1.0}) == pytest.approx({"a": 1.0, "b": 1.0})
    seen: list[dict[str, float]] = []
    method.learn = seen.append
    method.see({"a": 2.0, "b": 3.0}, {"a": 1.0, "b": 0.75})
    # L/L(0) = 0.25, 0.75, r = 0.5, 1.5, Ḡ = 2.5, targets 0.625 and 5.625: a has too much, b too little.
    # The gradient is ± the norm; a target that moves along would give 2 (1 - 0.25 / 2) and so on.
    assert seen == [{"a": 2.0, "b": -3.0}]


def test_gradnorms_weights_stay_positive_and_resting_tasks_keep_theirs() -> None:
    method = make("gradnorm", learning_rate=1.0)
    for _ in range(30):
        method.see({"a": 5.0, "b": 0.1}, {"a": 1.0, "b": 1.0})
        found = weights(method)
        assert found["a"] > 0
        assert found["c"] == 1.0
        assert sum(found.values()) == pytest.approx(3)


def test_famos_weights_of_the_losses_sum_to_one_and_are_larger_for_small_losses() -> None:
    method = make("famo", tasks="ab")
    # z = 1/2 each, c = 1 / (0.5 / 2 + 0.5 / 0.5) = 0.8: weights 0.8 · 0.5 / L
    assert weights(method, {"a": 2.0, "b": 0.5}) == pytest.approx({"a": 0.2, "b": 0.8}, rel=1e-5)


def test_famo_gives_weight_to_the_task_whose_loss_fell_by_the_smaller_share() -> None:
    method: Any = make("famo", tasks="ab", learning_rate=0.1, decay=0)
    method.observe({"a": 2.0, "b": 0.5})
    seen: list[dict[str, float]] = []
    learn, method.learn = method.learn, seen.append
    method.look_back({"a": 1.0, "b": 0.4})
    fell = {"a": math.log(2), "b": math.log(1.25)}
    mean = (fell["a"] + fell["b"]) / 2
    assert seen[0] == pytest.approx({"a": 0.5 * (fell["a"] - mean), "b": 0.5 * (fell["b"] - mean)}, rel=1e-5)
    learn(seen[0])
    assert method.numbers(["a", "b"]).tolist() == pytest.approx([-0.1, 0.1], rel=1e-4)


@pytest.mark.parametrize("name", WEIGHING)
def test_permuted_tasks_have_permuted_weights(name: str) -> None:
    one, other = make(name, "abc"), make(name, "cab")
    for method in (one, other):
        walk(method, 6)
    found = weights(other, {task: LOSSES[task] for task in "cab"})
    assert {task: found[task] for task in "abc"} == pytest.approx(weights(one), rel=1e-6)


@pytest.mark.parametrize("name", ["equal", "manual", "uncertainty", "imtl_l", "rlw", "dwa", "dtp", "gradnorm"])
def test_a_single_task_starts_with_its_plain_loss_to_the_bit(name: str) -> None:
    method = make(name, "a")
    assert weights(method, {"a": 0.7}) == {"a": 1.0}
    assert method({"a": torch.tensor(0.7)}).item() == torch.tensor(0.7).item()


def test_a_single_task_has_weight_one_under_famo_too() -> None:
    assert weights(make("famo", "a"), {"a": 0.7}) == pytest.approx({"a": 1.0})


@pytest.mark.parametrize("name", WEIGHING)
def test_a_method_that_is_saved_and_loaded_goes_on_as_if_it_was_not(name: str, tmp_path: Any) -> None:
    whole, first, second = (make(name, seed=3) for _ in range(3))
    walk(whole, 5)
    walk(first, 5)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for method in (whole, second):
        walk(method, 4)
    assert weights(second) == weights(whole)
    assert str(second.state_dict()) == str(whole.state_dict())


@pytest.mark.parametrize("name", ["rlw", "dwa", "dtp", "gradnorm", "famo"])
def test_what_is_saved_matters(name: str) -> None:
    """Or else the test above proves nothing."""
    fresh, walked = make(name, seed=3), make(name, seed=3)
    walk(walked, 9)
    assert weights(fresh) != pytest.approx(weights(walked), rel=1e-3)


@pytest.mark.parametrize("name", WEIGHING)
def test_a_task_that_rests_has_no_part_in_the_total(name: str) -> None:
    method = make(name)
    walk(method, 3)
    assert set(weights(method, {"c": 1.0, "a": 2.0})) == {"a", "c"}
    assert math.isfinite(method(tensors({"a": 2.0})).item())


def test_every_method_is_tested() -> None:
    from test_balancing_gradients import AGGREGATING

    assert sorted([*WEIGHING, *AGGREGATING]) == sorted(BALANCING)
