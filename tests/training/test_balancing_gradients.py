"""Methods on the tasks' gradients, by small matrices worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.errors import HarnessError
from harness.training.balancing.base import Balancer, Setting, build_balancer
from harness.training.balancing.dual_cone import DualCone
from harness.training.balancing.nash import bargain
from harness.training.config import TrainingConfig

AGGREGATING = [
    "pcgrad", "cagrad", "mgda", "imtl_g", "graddrop", "aligned_mtl", "gradvac", "fairgrad", "config", "upgrad",
    "nash_mtl",
]  # fmt: skip
CONFLICT = torch.tensor([[2.0, 0.0], [-1.0, 1.0]])  # a·b = -2
THREE = torch.tensor([[1.0, 2.0, -1.0, 0.5], [-2.0, 1.0, 0.5, 0.0], [0.5, -1.5, 1.0, 1.0]])


def make(name: str, tasks: str = "ab", seed: int = 0, **options: Any) -> Balancer:
    config = TrainingConfig.model_validate({"steps": 1, "balancing": {"name": name} | options}).balancing
    return build_balancer(config, Setting(dict.fromkeys(tasks, 1.0), seed))


def vector(method: Balancer, jacobian: Tensor = CONFLICT, tasks: str = "ab") -> list[float]:
    found: list[float] = method.aggregate(jacobian, tuple(tasks))[0].tolist()
    return found


def test_pcgrad_takes_from_each_gradient_its_conflict_with_the_others_as_they_were() -> None:
    # a loses its part along b: (2, 0) + 2/2 (-1, 1) = (1, 1); b along a: (-1, 1) + 2/4 (2, 0) = (0, 1). Sum, not mean.
    # Projected on what is left of a, as some code does, b would stay (-1, 1): (0, 2).
    assert vector(make("pcgrad")) == pytest.approx([1.0, 2.0])


def test_pcgrad_leaves_gradients_that_agree_alone() -> None:
    assert vector(make("pcgrad"), torch.tensor([[1.0, 0.0], [1.0, 1.0]])) == pytest.approx([2.0, 1.0])


def test_mgda_finds_the_shortest_vector_between_the_gradients() -> None:
    # min ‖w (2, 0) + (1 - w) (-1, 1)‖: w = b·(b - a) / ‖b - a‖² = 4 / 10
    found, weights = make("mgda").aggregate(CONFLICT, ("a", "b"))
    assert weights == pytest.approx({"a": 0.4, "b": 0.6}, abs=1e-3)
    assert found.tolist() == pytest.approx([0.2, 0.6], abs=1e-3)


def test_imtl_g_has_equal_projections_on_all_unit_gradients_and_weights_that_sum_to_one() -> None:
    found, weights = make("imtl_g", "abc").aggregate(THREE, tuple("abc"))
    projections = (THREE / THREE.norm(dim=1, keepdim=True)) @ found
    assert projections.tolist() == pytest.approx([float(projections[0])] * 3, rel=1e-4)
    assert sum(weights.values()) == pytest.approx(1.0)


def test_aligned_mtl_makes_gradients_orthogonal_and_as_long_as_the_smallest_singular_value() -> None:
    # (3, 0) and (0, 1): already orthogonal; both get length 1, and the mean is taken.
    assert vector(make("aligned_mtl"), torch.tensor([[3.0, 0.0], [0.0, 1.0]])) == pytest.approx([0.5, 0.5])
    long = make("aligned_mtl", scale_mode="rmse")
    assert vector(long, torch.tensor([[3.0, 0.0], [0.0, 1.0]])) == pytest.approx([math.sqrt(5) / 2] * 2)


def test_config_has_the_same_cosine_to_every_gradient_and_the_length_of_all_projections() -> None:
    found = torch.tensor(vector(make("config"), torch.tensor([[3.0, 0.0], [0.0, 1.0]])))
    # Direction (1, 1) / √2, length (3 + 1) / √2.
    assert found.tolist() == pytest.approx([2.0, 2.0], rel=1e-5)


def test_config_from_inner_products_alone_is_torchjds_from_whole_gradients() -> None:
    from torchjd.aggregation import ConFIG

    found, weights = make("config", "abc").aggregate(THREE, tuple("abc"))
    assert found.tolist() == pytest.approx(ConFIG()(THREE).tolist(), rel=1e-4)
    assert set(weights) == set("abc")


def test_config_has_equal_cosines_in_as_many_dimensions_as_a_network_has_weights() -> None:
    """Where torchjd's own is zero, for the default tolerance of a pseudo-inverse is 32-bit rounding times N."""
    jacobian = torch.randn(2, 9_000_000, generator=torch.Generator().manual_seed(0))
    jacobian[1] = 2 * jacobian[1] - jacobian[0]
    found, _ = make("config").aggregate(jacobian, ("a", "b"))
    cosines = torch.nn.functional.cosine_similarity(jacobian, found[None])
    assert float(cosines[0]) > 0.1
    assert float(cosines[0]) == pytest.approx(float(cosines[1]), rel=1e-2)
    assert float(found.norm()) == pytest.approx(float((jacobian @ (found / found.norm())).sum()), rel=1e-2)


def test_config_of_parallel_gradients_is_their_sum() -> None:
    one = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    found = torch.tensor(vector(make("config"), torch.stack([one, 3 * one])))
    torch.testing.assert_close(found, 4 * one, rtol=1e-3, atol=1e-3)


def test_upgrad_projects_each_gradient_to_where_no_task_loses_and_takes_the_mean() -> None:
    # As in torchjd's documentation.
    found = vector(make("upgrad"), torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]))
    assert found == pytest.approx([0.2929, 1.9004, 1.9004], abs=2e-3)
    # (2, 0) to where b does not lose is (1, 1), (-1, 1) to where a does not is (0, 1).
    assert vector(make("upgrad")) == pytest.approx([0.5, 1.0], rel=1e-5)


def test_the_projections_weights_are_the_least_that_satisfy_every_task() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        jacobian = torch.randn(4, 6, generator=generator)
        gramian = jacobian @ jacobian.T
        found = DualCone()(torch.eye(4), gramian)
        assert bool((found >= torch.eye(4) - 1e-6).all())
        gains = found @ gramian
        assert bool((gains >= -1e-4).all())
        # Where a weight was raised, that task exactly does not lose.
        assert bool(((found - torch.eye(4)) * gains).abs().max() < 1e-3)


def test_cagrad_stays_within_its_ball_and_helps_the_worst_task_more_than_the_mean_does() -> None:
    mean = THREE.mean(0)
    found, _ = make("cagrad", "abc", c=0.5).aggregate(THREE, tuple("abc"))
    assert float((found - mean).norm()) == pytest.approx(0.5 * float(mean.norm()), rel=1e-3)
    assert float((THREE @ found).min()) > float((THREE @ mean).min())
    angles = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0))
    others = mean + 0.5 * mean.norm() * angles / angles.norm(dim=1, keepdim=True)
    assert float((THREE @ found).min()) >= float((others @ THREE.T).min(1).values.max()) - 1e-4
    assert vector(make("cagrad", "abc", c=0), THREE, "abc") == pytest.approx(mean.tolist(), rel=1e-5)


def test_fairgrads_gains_are_a_power_of_the_weights() -> None:
    for alpha in (1.0, 2.0):
        found, weights = make("fairgrad", "abc", alpha=alpha).aggregate(THREE, tuple("abc"))
        expected = [weight ** (-1 / alpha) for weight in weights.values()]
        assert (THREE @ found).tolist() == pytest.approx(expected, rel=1e-3)


def test_nash_mtls_gains_are_one_over_the_weights_also_where_gradients_conflict() -> None:
    """Torchjd's and the authors' solver finds no solution for these gradients and silently takes weights of 1."""
    found, weights = make("nash_mtl", "abc", max_norm=1e6).aggregate(THREE, tuple("abc"))
    gains = (THREE @ found) / (THREE @ THREE.T).norm()
    assert gains.tolist() == pytest.approx([1 / weight for weight in weights.values()], rel=1e-4)
    assert min(weights.values()) > 0
    assert float((THREE @ found).min()) > 0 > float((THREE @ THREE.sum(0)).min())


def test_the_nash_solution_of_orthogonal_gradients_weighs_by_one_over_the_norm() -> None:
    assert bargain(np.diag([4.0, 0.25])).tolist() == pytest.approx([0.5, 2.0])
    # Two of cosine c: b (1 + c) = 1 / b
    assert bargain(np.array([[1.0, -0.75], [-0.75, 1.0]])).tolist() == pytest.approx([2.0, 2.0])


def test_the_nash_solution_is_found_for_gradients_of_very_different_lengths() -> None:
    generator = np.random.default_rng(0)
    for count in (2, 3, 4, 8):
        jacobian = generator.normal(size=(count, 20)) * np.exp(generator.uniform(-7, 7, (count, 1)))
        gramian = jacobian @ jacobian.T
        weights = bargain(gramian)
        assert (gramian @ weights * weights).tolist() == pytest.approx([1.0] * count, rel=1e-6)


def test_nash_mtls_gradient_is_cut_at_its_largest_norm() -> None:
    assert float(torch.tensor(vector(make("nash_mtl", "abc", max_norm=0.5), THREE, "abc")).norm()) == pytest.approx(0.5)


def test_nash_mtl_keeps_its_weights_between_updates_unless_other_tasks_come() -> None:
    method = make("nash_mtl", "abc", update_every=2, max_norm=1e6)
    first = method.aggregate(THREE, tuple("abc"))[1]
    method.observe({})
    assert method.aggregate(2 * THREE.flip(1), tuple("abc"))[1] == first
    assert set(method.aggregate(THREE[:2], ("a", "b"))[1]) == {"a", "b"}


def test_graddrop_keeps_one_sign_per_weight_with_the_probability_of_its_share() -> None:
    method, positive = make("graddrop"), 0
    jacobian = torch.tensor([[3.0, 1.0, 0.0], [-1.0, 1.0, 0.0]])
    for _ in range(400):
        first, second, third = vector(method, jacobian)
        assert (second, third) == (2.0, 0.0)
        assert first in (3.0, -1.0)
        positive += first == 3.0
        method.observe({})
    assert positive / 400 == pytest.approx(0.75, abs=0.07)  # ½ (1 + 2 / 4)


def test_gradvac_turns_a_gradient_to_the_usual_cosine() -> None:
    method: Any = make("gradvac", beta=1.0)
    agreeing = torch.tensor([[1.0, 0.0], [0.6, 0.8]])  # cosine 0.6 becomes usual; it is above 0, so nothing turns
    assert vector(method, agreeing) == pytest.approx([1.6, 0.8])
    method.observe({})
    apart = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    # φ = 0, φ̂ = 0.6: a + b · 0.6 / 0.8 = (1, 0.75), of cosine 0.6 with b; b likewise.
    assert vector(method, apart) == pytest.approx([1.75, 1.75], rel=1e-5)


def test_gradvac_remembers_each_pair_while_tasks_rest() -> None:
    method = make("gradvac", "abc", beta=1.0)
    method.aggregate(torch.tensor([[1.0, 0.0], [0.6, 0.8]]), ("a", "c"))
    method.observe({})
    method.aggregate(torch.eye(2), ("a", "b"))
    method.observe({})
    assert vector(method, torch.eye(2), "ac") == pytest.approx([1.75, 1.75], rel=1e-5)


@pytest.mark.parametrize("name", ["pcgrad", "cagrad", "mgda", "imtl_g", "graddrop", "aligned_mtl", "gradvac", "config",
                                  "upgrad"])  # fmt: skip
def test_gradients_that_are_all_smaller_give_a_gradient_that_is_smaller_alike(name: str) -> None:
    """Torchjd takes a squared norm below 1e-4 for 0, and would stop a training whose gradients are small."""
    large, small = vector(make(name, "abc"), THREE, "abc"), vector(make(name, "abc"), THREE / 4096, "abc")
    assert [4096 * one for one in small] == pytest.approx(large, rel=1e-3)
    assert max(map(abs, large)) > 0.1


@pytest.mark.parametrize("name", [*AGGREGATING])
def test_gradients_of_zero_give_zero(name: str) -> None:
    found = torch.tensor(vector(make(name, "abc"), torch.zeros(3, 4), "abc"))
    assert found.tolist() == [0.0] * 4


@pytest.mark.parametrize("name", AGGREGATING)
def test_draws_repeat_with_seed_and_step_and_leave_the_global_stream_alone(name: str) -> None:
    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    found = [vector(make(name, "abc", seed=4), THREE, "abc") for _ in range(2)]
    assert found[0] == found[1]
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("name", AGGREGATING)
def test_a_method_that_is_saved_and_loaded_goes_on_as_if_it_was_not(name: str, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    jacobians = [torch.randn(3, 5, generator=generator) for _ in range(6)]
    whole, first, second = (make(name, "abc", seed=2) for _ in range(3))

    def walk(method: Balancer, steps: list[Tensor]) -> list[list[float]]:
        found = []
        for jacobian in steps:
            found.append(vector(method, jacobian, "abc"))
            method.observe({})
        return found

    expected = walk(whole, jacobians)
    walk(first, jacobians[:3])
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert walk(second, jacobians[3:]) == expected[3:]


def test_a_missing_package_is_one_sentence_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for package in ("torchjd", "torchjd.aggregation"):
        monkeypatch.setitem(sys.modules, package, None)
    config = TrainingConfig.model_validate({"steps": 1, "balancing": {"name": "cagrad"}}).balancing
    with pytest.raises(HarnessError, match=r"cagrad needs packages .* pip install 'placeholder-harness\[jacobian\]'"):
        build_balancer(config, Setting({"a": 1.0, "b": 1.0}))
