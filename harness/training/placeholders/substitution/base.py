"""What every substitution strategy is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from harness.data.batches import Batch
from harness.data.loading import Place, TaskData
from harness.data.transforms import derive_seed
from harness.models.network import MultiTaskNetwork
from harness.models.substitution import Choice
from harness.training.config import TrainingConfig
from harness.training.engine import Engine
from harness.training.placeholders.substitution.config import SubstitutionConfig


@dataclass(frozen=True)
class Setting:
    """What a strategy may know of the run.

    Attributes:
        config: Its section.
        training: The recipe.
        network: Not wrapped yet, on its device.
        engine: The processes.
        pairs: For each target its possible sources; see `Substitution`.
        data: Training splits by dataset name.
        sizes: Images per batch of all processes.
        leaders: Whose images tasks take that take another's.
        batches: How many batches each task gets in the whole run.
        steps: Of the whole run.
        seed: Of the run.
        shared_tokens: Whether all tasks learn the same placeholder tokens.
    """

    config: SubstitutionConfig
    training: TrainingConfig
    network: MultiTaskNetwork
    engine: Engine
    pairs: Mapping[str, tuple[str, ...]]
    data: Mapping[str, TaskData]
    sizes: Mapping[str, int]
    leaders: Mapping[str, str]
    batches: Mapping[str, int]
    steps: int
    seed: int
    shared_tokens: bool

    @property
    def sources(self) -> list[str]:
        """All tasks that are a source of any other, in the order of the submission."""
        found = {source for sources in self.pairs.values() for source in sources}
        return [name for name in self.network.specs if name in found]


class Strategy:
    """Chooses a source for each target and step. What it remembers is in `state`, and is the same in every process.

    Args:
        setting: What it may know of the run.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def sources(self, step: int, target: str) -> Sequence[str]:
        """The source of a step's target, or one for each fold; empty for none."""
        raise NotImplementedError

    def ratio(self, step: int) -> float:
        """ρ of a step."""
        return self.setting.config.share

    def choice(self, step: int) -> Choice:
        """What a step does."""
        sources = {target: self.sources(step, target) for target in self.setting.pairs}
        return Choice(self.setting.seed, step, self.ratio(step), sources)

    def order(self, name: str, order: Iterable[list[Place]]) -> Iterable[list[Place]]:
        """The batches that a task is trained on."""
        return order

    def look(self, step: int, model: nn.Module, batches: Mapping[str, Batch], rate: float) -> None:
        """Called before each step. All processes.

        Args:
            step: Its number.
            model: The network as `Engine.prepare` gave it.
            batches: This process's slices, by dataset name, on its device.
            rate: The learning rate.
        """

    def take(self, losses: Mapping[str, float], rate: float) -> None:
        """Called after each step with the losses of the whole step, by task. All processes."""

    def asked(self) -> Iterable[nn.Module]:
        """The heads that are asked for outputs."""
        return [self.setting.network.heads[source] for source in self.setting.sources]

    def points(self) -> dict[str, float]:
        """Points of the learning curves, beside shares and ρ."""
        return {}

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold: tensors and plain values."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore `state`."""

    def draw(self, step: int, target: str) -> np.random.Generator:
        """The random stream of a step's target, which nothing else draws from."""
        return np.random.default_rng(derive_seed("source", self.setting.seed, step, target))
