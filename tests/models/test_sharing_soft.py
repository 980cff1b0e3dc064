"""Soft sharing: what the penalties are, and which weights they are on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from tests_support import batches, document
from torch import Tensor

from harness.models.config import ModelConfig
from harness.models.network import PENALTY, MultiTaskNetwork, TaskSpec
from harness.models.sharing.likeness import NORMS, joint_sparsity, spread, trace_norm

SPECS = {"c": TaskSpec("classification", 5), "d": TaskSpec("detection", 3), "s": TaskSpec("segmentation", 4)}


def build(names: str = "cds", strides: Sequence[int] = (8, 16), **options: object) -> MultiTaskNetwork:
    section = document(0)["model"]
    section["neck"]["strides"] = list(strides)
    section["sharing"] = {"name": "soft", **options}
    torch.manual_seed(0)
    return MultiTaskNetwork(ModelConfig.model_validate(section), {name: SPECS[name] for name in names})


def reached(net: MultiTaskNetwork, name: str) -> set[str]:
    """Names of a task's own weights that its loss trains."""
    net.zero_grad()
    net({name: batches()[name]})[name].backward()
    return {key for key, one in net.get_submodule(f"shared.columns.{name}").named_parameters() if one.grad is not None}


def test_spread_is_the_squared_distance_from_the_mean() -> None:
    weights = torch.tensor([[1.0, 5.0], [3.0, 5.0]])  # means 2 and 5
    assert spread(weights, [2]) == 2.0


def test_joint_sparsity_sums_the_length_of_each_weight_across_tasks() -> None:
    assert joint_sparsity(torch.tensor([[3.0, 0.0, 5.0], [4.0, 0.0, 12.0]]), [3]) == 18.0  # 5 + 0 + 13


def test_the_trace_norm_sums_singular_values_tensor_by_tensor() -> None:
    weights = torch.tensor([[3.0, 0.0, 1.0], [0.0, 4.0, 1.0]])  # diag(3, 4), and a column of length sqrt 2
    torch.testing.assert_close(trace_norm(weights, [2, 1]), torch.tensor(7 + 2**0.5))
    other = torch.randn(3, 9)
    expected = torch.linalg.svdvals(other[:, :4]).sum() + torch.linalg.svdvals(other[:, 4:]).sum()
    torch.testing.assert_close(trace_norm(other, [4, 5]), expected)


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_gradients_of_a_penalty_are_those_of_finite_differences(norm: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    weights = torch.randn(3, 11, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda one: norm(one, [4, 7]), [weights])


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_weights_that_are_zero_are_left_alone(norm: Callable[..., Tensor]) -> None:
    weights = torch.zeros(3, 4, requires_grad=True)
    norm(weights, [4]).backward()
    assert weights.grad is not None
    assert not weights.grad.any()


def test_the_trace_norm_of_equal_tasks_pulls_them_together_alike() -> None:
    weights = torch.tensor([[3.0, 4.0], [3.0, 4.0]], requires_grad=True)
    trace_norm(weights, [2]).backward()
    assert weights.grad is not None
    torch.testing.assert_close(weights.grad, weights.detach() / 50**0.5)  # of one singular value, sqrt 50


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_the_order_of_tasks_does_not_matter_to_a_penalty(norm: Callable[..., Tensor]) -> None:
    weights = torch.randn(3, 11)
    torch.testing.assert_close(norm(weights, [4, 7]), norm(weights[[2, 0, 1]], [4, 7]))


def test_the_penalty_is_the_coefficient_times_the_spread_of_weights_that_tasks_have_in_common() -> None:
    net = build("ds", coefficient=0.5)
    data = {name: batches()[name] for name in "ds"}
    found = net(data)[PENALTY]
    read = [reached(net, name) for name in "ds"]
    expected = torch.zeros(())
    for key in read[0] & read[1]:
        one, other = (net.get_parameter(f"shared.columns.{name}.{key}") for name in "ds")
        expected += ((one - other) ** 2).sum() / 2
    torch.testing.assert_close(found, 0.5 * expected)
    assert found > 0


def test_a_neck_that_no_head_of_a_task_reads_pulls_no_other() -> None:
    net = build("cds")
    net({name: batches()[name] for name in "cds"})[PENALTY].backward()
    gradients = {key for key, one in net.named_parameters() if one.grad is not None and one.grad.any()}
    assert not any(key.startswith("shared.columns.c.neck") for key in gradients)
    assert any(key.startswith("shared.columns.d.neck") for key in gradients)
    assert any(key.startswith("shared.columns.c.backbone") for key in gradients)


def test_equal_trunks_have_no_penalty() -> None:
    net = build("ds")
    trunks = [net.get_submodule(f"shared.columns.{name}") for name in "ds"]
    trunks[1].load_state_dict(trunks[0].state_dict())
    assert net({name: batches()[name] for name in "ds"})[PENALTY] == 0


def test_a_penalty_is_not_computed_in_half_precision() -> None:
    net = build("ds", norm="trace")
    data = {name: batches()[name] for name in "ds"}
    with torch.autocast("cpu", torch.bfloat16):
        low = net(data)[PENALTY]
    torch.testing.assert_close(low, net(data)[PENALTY])
