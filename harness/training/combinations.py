"""What parts of a submission do not go together, told before anything is read. Light: no torch."""

from __future__ import annotations

from harness.models.config import ModelConfig
from harness.training.balancing.config import ASKING
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
    asking = _asking(model, training) if training.compile else None
    if asking is not None:
        raise ValueError(
            f"training.compile: does not go with {asking}, for which it matters what each task's loss reaches: in a"
            " compiled network weights that it does not reach have a gradient of zeros instead of none; leave one of"
            " the two out"
        )


def _asking(model: ModelConfig, training: TrainingConfig) -> str | None:
    """The first part of a submission that tells a weight without a gradient from one whose gradient is 0, if any."""
    substitution = training.placeholders.substitution
    parts = {
        f"training.balancing: {training.balancing.name}": training.balancing.name in ASKING,
        # Tasks rest: the optimizer leaves weights alone that have no gradient, and decays and moves those with zeros.
        f"training.regime: {training.regime.name}": training.regime.name != "joint",
        "model.sharing: soft": model.sharing.name == "soft",
        "training.placeholders.substitution: adaptive": substitution is not None
        and substitution.strategy == "adaptive",
        "training.log_gradients": training.log_gradients is not None,
        "training.log_affinity": training.log_affinity is not None,
    }
    return next((name for name, asks in parts.items() if asks), None)
