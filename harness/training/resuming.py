"""What a checkpoint of a run holds, and going on from one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from harness.errors import HarnessError
from harness.progress import Reporter
from harness.training import checkpoints
from harness.training.averaging import WeightAverage
from harness.training.engine import Engine
from harness.training.placeholders.substitution.controller import Substituting
from harness.training.selection import Selection
from harness.training.state import Progress


class Resumable:
    """Everything that changes while a run goes on.

    Args:
        network: Not wrapped.
        balancer: Its weights of the losses may be learned.
        optimizer: As prepared by the engine.
        engine: Device, precision and processes.
        average: Of the weights, if there is one.
        selection: Of the weights, if there is one.
        substituting: What stands for a task's features, if anything does.
        kept: How many checkpoints stay.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        balancer: torch.nn.Module,
        optimizer: Any,
        engine: Engine,
        average: WeightAverage | None,
        selection: Selection | None,
        substituting: Substituting | None = None,
        kept: int = 2,
    ) -> None:
        self._parts = {"network": network, "balancer": balancer, "optimizer": optimizer}
        # Beside its weights, an architecture may have found out something in the steps that are done.
        shared = getattr(network, "shared", None)
        self._sharing: Any = shared if hasattr(shared, "memory") else None
        if substituting is not None:
            self._parts["substituting"] = substituting
        self._engine, self._average, self._selection, self._kept = engine, average, selection, kept

    def keep(self, folder: Path, progress: Progress) -> None:
        """Write a checkpoint. All processes."""
        streams = self._engine.gather(checkpoints.random_states())
        if not self._engine.main:
            return
        state = {name: part.state_dict() for name, part in self._parts.items()}
        state |= {"progress": vars(progress), "engine": self._engine.state(), "random": streams}
        if self._sharing is not None:
            state["sharing"] = self._sharing.memory()
        if self._average is not None:
            state["average"] = self._average.state()
        if self._selection is not None:
            state["best"] = self._selection.best
        checkpoints.save(folder, state)
        checkpoints.thin(folder, self._kept)

    def resume(self, folder: Path, reporter: Reporter) -> Progress:
        """Take up the newest checkpoint, if there is one. All processes.

        Raises:
            HarnessError: It holds something else than what this run keeps.
        """
        state = self._engine.from_main(lambda: checkpoints.load(folder))
        if state is None:
            return Progress()
        try:
            return self._restore(state, reporter)
        except torch.OutOfMemoryError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error).partition("\n")[0]
            raise HarnessError(
                f"{folder}: its checkpoint is not one of this run, or of another version ({reason}); restore it, go on"
                " with the version that wrote it, or train again with harness submit --fresh"
            ) from None

    def _restore(self, state: Any, reporter: Reporter) -> Progress:
        engine = self._engine
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        engine.load_state(state["engine"])
        if self._sharing is not None:
            self._sharing.remember(state.get("sharing", {}))
        if self._average is not None:
            self._average.load_state(state["average"])
        if self._selection is not None and engine.main:
            self._selection.best = state["best"]
        streams = state["random"]
        if engine.rank < len(streams):
            checkpoints.restore_random_states(streams[engine.rank])
        if engine.world != len(streams):
            reporter.say(
                f"the checkpoint is of {len(streams)} processes: with {engine.world} the run goes on from it, but"
                " random streams are others, so its weights will not be those of an uninterrupted run"
            )
        return Progress(**state["progress"])
