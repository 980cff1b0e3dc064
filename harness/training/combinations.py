"""What parts of a submission do not go together, told before anything is read. Light: no torch."""

from __future__ import annotations

from harness.models.config import ModelConfig
from harness.training.config import TrainingConfig


def check_combinations(model: ModelConfig, training: TrainingConfig) -> None:
    """Check what needs no dataset card.

    Raises:
        ValueError: Two parts of the submission would not do together what each says it does.
    """
    if training.gradient_checkpointing and model.sharing.name == "dynamic_routing":
        raise ValueError(
            "training.gradient_checkpointing: sharing dynamic_routing skips blocks by the route of the task at hand,"
            " which is no longer known when a stage is computed again; leave one of the two out"
        )
