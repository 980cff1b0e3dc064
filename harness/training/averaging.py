"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """The average of a network's weights over the steps so far, recent ones counting more.

    After step t it is Σ_k d^(t-k) θ_k / Σ_k d^(t-k) over the weights θ_1 to θ_t that the steps ended in (Kingma & Ba
    2015, section 7.2: a moving average with its bias towards the start taken out). Without that division, which most
    code leaves out, the first weights would keep a share of d^t: three quarters after 300 steps with d = 0.999.

    Batch-norm statistics are averaged like the weights that they were measured with; whole numbers are those of the
    last step. Frozen weights are left alone. Averages are kept beside the network, not in a copy of it: features are
    read by hooks that know their network, which `torch.optim.swa_utils.AveragedModel` would copy along.

    Args:
        network: Whose weights. Already on its device.
        decay: d, the share of the average that stays at each step.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network = network
        self._decay = decay
        self._steps = 0
        frozen = {name for name, p in network.named_parameters(remove_duplicate=False) if not p.requires_grad}
        state = network.state_dict()
        self._names = [name for name, t in state.items() if t.is_floating_point() and name not in frozen]
        self._average = [state[name].clone() for name in self._names]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights that an optimizer step ended in."""
        self._steps += 1
        weight = (1 - self._decay) / (1 - self._decay**self._steps)  # of the new weights; 1 at the first step
        get_ema_multi_avg_fn(1 - weight)(self._average, self._weights(), self._steps)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The network has the average for the time of a block, and then exactly its own weights again."""
        with torch.no_grad():
            own = [tensor.clone() for tensor in self._weights()]
        self.install()
        try:
            yield
        finally:
            self._set(own)

    def install(self) -> None:
        """Give the network the average. Before the first step it is the network's own weights."""
        self._set(self._average)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"steps": self._steps, "average": dict(zip(self._names, self._average, strict=True))}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore `state`."""
        self._steps = state["steps"]
        for name, tensor in zip(self._names, self._average, strict=True):
            tensor.copy_(state["average"][name])

    def _weights(self) -> list[Tensor]:
        state = self._network.state_dict()
        return [state[name] for name in self._names]

    @torch.no_grad()
    def _set(self, values: list[Tensor]) -> None:
        for tensor, value in zip(self._weights(), values, strict=True):
            tensor.copy_(value)
