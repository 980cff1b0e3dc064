"""Mixtures of shared experts: with one gate, with a gate per task (Ma 2018), and the latter stacked."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from harness.models.config import ModelConfig
from harness.models.sharing.experts import Experts, Gate, mixed
from harness.models.sharing.loads import Place, numbered
from harness.models.sharing.mixture import MixtureSharing
from harness.models.sharing.options import MlMmoeConfig, MmoeConfig, MoeConfig


class Mmoe(nn.Module):
    """y_t = Σ_e softmax(W_t GAP(X))_e f_e(X) (Ma 2018, "Modeling Task Relationships in Multi-task Learning with MMoE").

    Args:
        tasks: Each gets a gate of its own at every level.
        channels: C of the map.
        experts: E.
        width: Of an expert.
        kernel: Side of its convolutions.
        levels: How many are stacked: each one's experts and gates read what the one below made for the task.
    """

    def __init__(
        self, tasks: Sequence[str], channels: int, experts: int, width: int, kernel: int, levels: int = 1
    ) -> None:
        super().__init__()
        self.experts = nn.ModuleList(Experts(channels, experts, width, kernel) for _ in range(levels))
        self.gates = nn.ModuleList(
            nn.ModuleDict({task: Gate(channels, experts) for task in tasks}) for _ in range(levels)
        )

    def forward(self, features: Tensor, padding: Tensor | None, tasks: Sequence[str]) -> dict[str, Tensor]:
        """See `Mixture`."""
        outputs = self.experts[0](features)  # the same for all tasks
        return {task: self._climb(features, outputs, padding, task) for task in tasks}

    def places(self) -> list[Place]:
        """See `Mixture`."""
        return [
            Place(task, level, numbered(self.experts[0].count), gate)  # type: ignore[arg-type]
            for level, gates in enumerate(self.gates, start=1)
            for task, gate in gates.items()  # type: ignore[operator]
        ]

    def _climb(self, features: Tensor, outputs: Tensor, padding: Tensor | None, task: str) -> Tensor:
        for level, gates in enumerate(self.gates):
            if level:
                outputs = self.experts[level](features)
            features = mixed(gates[task](features, padding), outputs)  # type: ignore[index]
        return features


class Moe(nn.Module):
    """y = Σ_e softmax(W GAP(X))_e f_e(X) for every task (Jacobs 1991; the baseline OMoE of Ma 2018).

    Args:
        channels: C of the map.
        experts: E.
        width: Of an expert.
        kernel: Side of its convolutions.
    """

    def __init__(self, channels: int, experts: int, width: int, kernel: int) -> None:
        super().__init__()
        self.experts = Experts(channels, experts, width, kernel)
        self.gate = Gate(channels, experts)

    def forward(self, features: Tensor, padding: Tensor | None, tasks: Sequence[str]) -> dict[str, Tensor]:
        """See `Mixture`."""
        return dict.fromkeys(tasks, mixed(self.gate(features, padding), self.experts(features)))

    def places(self) -> list[Place]:
        """See `Mixture`."""
        return [Place("", 1, numbered(self.experts.count), self.gate)]


class MoeSharing(MixtureSharing):
    """One trunk, then experts that one gate weighs for all tasks (Jacobs 1991)."""

    def _mixture(self, config: ModelConfig, tasks: Sequence[str], channels: int, kernel: int) -> nn.Module:
        assert isinstance(config.sharing, MoeConfig)
        return Moe(channels, config.sharing.experts, config.sharing.width, kernel)


class MmoeSharing(MixtureSharing):
    """One trunk, then experts that each task's gate weighs (Ma 2018)."""

    def _mixture(self, config: ModelConfig, tasks: Sequence[str], channels: int, kernel: int) -> nn.Module:
        assert isinstance(config.sharing, MmoeConfig)
        return Mmoe(tasks, channels, config.sharing.experts, config.sharing.width, kernel)


class MlMmoeSharing(MixtureSharing):
    """One trunk, then several levels of experts that each task's gates weigh (ML-MMoE in Tang 2020)."""

    def _mixture(self, config: ModelConfig, tasks: Sequence[str], channels: int, kernel: int) -> nn.Module:
        options = config.sharing
        assert isinstance(options, MlMmoeConfig)
        return Mmoe(tasks, channels, options.experts, options.width, kernel, options.levels)
