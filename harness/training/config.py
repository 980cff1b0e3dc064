"""The ``training``, ``evaluation`` and ``tracking`` sections of a submission. Light: no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from harness.documents import Section


class RegimeConfig(Section):
    """Which tasks a step trains. ``joint``: one batch of every task per step, one optimizer step."""

    name: str = "joint"


class BalancingConfig(Section):
    """How the tasks' losses become one. ``equal`` adds them up; ``manual`` weighs them by ``tasks[].weight``."""

    name: str = "equal"


class OptimizerConfig(Section):
    """AdamW, or SGD with Nesterov momentum.

    Attributes:
        learning_rate: The peak of the schedule.
        weight_decay: Not applied to biases, norms, position embeddings and placeholder tokens.
        momentum: SGD only.
        layer_decay: Each stage of the backbone (block of a plain transformer) learns at this share of the rate of the
            one after it; 1 means all learn alike.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    layer_decay: float = Field(default=1.0, gt=0, le=1)


class ScheduleConfig(Section):
    """Learning rate over training: linear warm-up, then cosine to 0, or constant.

    Attributes:
        warmup: Share of all steps spent warming up.
    """

    name: Literal["cosine", "constant"] = "cosine"
    warmup: float = Field(default=0.1, ge=0, le=1)


class TrainingConfig(Section):
    """How the network is trained.

    Attributes:
        steps: Optimizer steps.
        gradient_clip: Largest norm of the whole gradient; None means no clipping.
        precision: ``32``, or mixed ``bf16`` or ``16``.
        workers: Loader processes per task; 0 loads in the training process.
        on_bad_image: What to do with a training image that cannot be read: ``stop``, or ``skip`` it, take the next one
            and say so in the record. Images to be scored are never skipped.
        checkpoint_every: Steps between checkpoints. Does not change the result.
        log_every: Steps between points of the learning curves.
    """

    regime: RegimeConfig = RegimeConfig()
    balancing: BalancingConfig = BalancingConfig()
    steps: int = Field(ge=1)
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    gradient_clip: float | None = Field(default=10.0, gt=0)
    precision: Literal["32", "bf16", "16"] = "32"
    workers: int = Field(default=0, ge=0, le=64)
    on_bad_image: Literal["stop", "skip"] = "stop"
    checkpoint_every: int = Field(default=100, ge=1)
    log_every: int = Field(default=25, ge=1)

    @field_validator("precision", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class EvaluationConfig(Section):
    """How the trained network is scored.

    Attributes:
        batch_size: Images per forward pass.
        limit: Use at most so many images of every split and take at most so many steps: a smoke run, never ranked.
    """

    batch_size: int = Field(default=64, ge=1, le=65536)
    limit: int | None = Field(default=None, ge=1)


class TrackingConfig(Section):
    """Weights & Biases: ``offline`` writes local files only and never asks anything."""

    wandb: Literal["offline", "online", "disabled"] = "offline"
