"""The moving average of the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.training.averaging import WeightAverage

DECAY = 0.9


def walked(steps: int) -> tuple[WeightAverage, nn.Module, list[Tensor]]:
    """An average after some steps of SGD, the network, and the weights after each step."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    average = WeightAverage(network, DECAY)
    path = [network[0].weight.detach().clone()]
    for _ in range(steps):
        network(torch.randn(8, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update()
        path.append(network[0].weight.detach().clone())
    return average, network, path


def test_the_average_is_the_formula_of_the_paper_and_not_one_of_its_popular_variants() -> None:
    average, network, path = walked(7)
    shares = [DECAY ** (7 - k) for k in range(1, 8)]
    paper = sum(share * weights for share, weights in zip(shares, path[1:], strict=True)) / sum(shares)
    before_the_step = sum(share * weights for share, weights in zip(shares, path[:-1], strict=True)) / sum(shares)
    from_the_start = path[0]
    from_the_first_step = path[1]
    for step, weights in enumerate(path[1:], start=1):
        from_the_start = DECAY * from_the_start + (1 - DECAY) * weights
        if step > 1:
            from_the_first_step = DECAY * from_the_first_step + (1 - DECAY) * weights
    average.install()
    torch.testing.assert_close(network[0].weight.detach(), paper)
    for wrong in (before_the_step, from_the_start, from_the_first_step):
        assert (wrong - paper).abs().max() > 1e-3


def test_after_the_first_step_the_average_is_the_weights_themselves() -> None:
    average, network, path = walked(1)
    average.install()
    assert torch.equal(network[0].weight, path[1])


def test_statistics_are_averaged_alike_and_counters_are_those_of_the_last_step() -> None:
    average, network, _ = walked(5)
    own = network[1].running_mean.clone()
    average.install()
    assert not torch.equal(network[1].running_mean, own)
    assert not torch.equal(network[1].running_mean, torch.zeros(4))
    assert network[1].num_batches_tracked == 5


def test_after_the_block_the_network_has_its_own_weights_bit_for_bit() -> None:
    average, network, path = walked(4)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with average.installed():
        assert not torch.equal(network[0].weight, path[-1])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_frozen_weights_are_not_touched() -> None:
    network = nn.Sequential(nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2))
    version = network[0].weight._version
    average = WeightAverage(network, DECAY)
    average.update()
    average.install()
    assert network[0].weight._version == version


def test_a_restored_average_goes_on_exactly() -> None:
    whole, network, _ = walked(6)
    other = WeightAverage(network, DECAY)
    other.load_state(whole.state())
    with torch.no_grad():
        network[0].weight.add_(1)
    for average in (whole, other):
        average.update()
    assert all(torch.equal(a, b) for a, b in zip(whole._average, other._average, strict=True))
