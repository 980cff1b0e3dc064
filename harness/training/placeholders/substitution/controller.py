"""Substitution in a run: before and after each step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from harness.data.batches import Batch
from harness.data.loading import Place, TaskData
from harness.models.network import MultiTaskNetwork
from harness.models.substitution import Substitution
from harness.registry import look_up
from harness.submission import Submission
from harness.training.engine import Engine
from harness.training.placeholders.substitution import STRATEGIES
from harness.training.placeholders.substitution.base import Setting, Strategy
from harness.training.regimes.plan import Plan


class Substituting:
    """Tells a network's `Substitution` what to do in each step, and keeps count of it. All processes alike.

    Args:
        setting: Of the strategy.
        substitution: The network's.
    """

    def __init__(self, setting: Setting, substitution: Substitution) -> None:
        self._engine, self._substitution = setting.engine, substitution
        self._strategy: Strategy = look_up(STRATEGIES, setting.config.strategy, "substitution strategy")(setting)
        self._counts = {target: dict.fromkeys(sources, 0) for target, sources in setting.pairs.items()}
        self._step: Mapping[str, Batch] = {}

    def order(self, name: str, order: Iterable[list[Place]]) -> Iterable[list[Place]]:
        """The batches that a task is trained on."""
        return self._strategy.order(name, order)

    def begin(self, step: int, model: nn.Module, batches: Mapping[str, Batch], rate: float) -> None:
        """Before the forward pass of a step. All processes.

        Args:
            step: Its number.
            model: The network as `Engine.prepare` gave it.
            batches: This process's slices, by dataset name, on its device.
            rate: The learning rate.
        """
        for head in self._strategy.asked():
            # Sources are asked in evaluation mode, in which the statistics of batch norms matter.
            self._engine.share_statistics(head)
        self._strategy.look(step, model, batches, rate)
        self._substitution.choice, self._step = self._strategy.choice(step), batches

    def end(self, losses: Mapping[str, float], rate: float, points: dict[str, float] | None) -> None:
        """After a step. All processes.

        Args:
            losses: Of the whole step, by task.
            rate: The learning rate.
            points: Gets points of the learning curves: the share of a target's images that each source stood in for
                since the last point, ρ, and what the strategy tells; None where nobody looks.
        """
        choice = self._substitution.choice
        assert choice is not None
        self._substitution.choice = None
        self._strategy.take({name: loss for name, loss in losses.items() if name in self._step}, rate)
        own = {target: dict.fromkeys(counts, 0) for target, counts in self._counts.items()}
        for target, batch in self._step.items():
            sources = choice.sources.get(target, ()) if choice.ratio else ()
            for image in batch.ids if sources else ():
                own[target][sources[choice.fold(target, image) % len(sources)]] += 1
        rows = self._engine.exchange([count for counts in own.values() for count in counts.values()])
        totals = iter([sum(column) for column in zip(*rows, strict=True)])
        for counts in self._counts.values():
            for source in counts:
                counts[source] += int(next(totals))
        if points is not None:
            points |= self._points(choice.ratio)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"strategy": self._strategy.state(), "counts": self._counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self._strategy.load_state(state["strategy"])
        self._counts = {target: dict(counts) for target, counts in state["counts"].items()}

    def _points(self, ratio: float) -> dict[str, float]:
        found = {"substitution/ratio": ratio}
        for target, counts in self._counts.items():
            total = sum(counts.values())
            if total:
                found |= {f"substitution/{target}|{source}": count / total for source, count in counts.items()}
            self._counts[target] = dict.fromkeys(counts, 0)
        return found | self._strategy.points()


def substitute(
    submission: Submission, network: MultiTaskNetwork, engine: Engine, data: Mapping[str, TaskData], plan: Plan
) -> Substituting | None:
    """What a submission wants to be replaced; None for nothing.

    Args:
        submission: The recipe.
        network: As `build_network` made it, on its device, not wrapped yet.
        engine: The processes.
        data: Training splits by dataset name.
        plan: Of the run.

    Raises:
        HarnessError: There are too few images to hold some out.
    """
    config = submission.training.placeholders.substitution
    if config is None:
        return None
    assert network.substitution is not None
    tokens = submission.model.placeholders
    setting = Setting(
        config=config,
        training=submission.training,
        network=network,
        engine=engine,
        pairs=network.substitution.pairs,
        data=data,
        sizes={task.dataset: task.batch_size for task in submission.tasks},
        leaders=submission.leaders(),
        batches=plan.batches(),
        steps=plan.steps,
        seed=next(iter(data.values())).seed,
        shared_tokens=tokens.count > 0 and tokens.trained_by_tasks and tokens.sharing == "all",
    )
    return Substituting(setting, network.substitution)
