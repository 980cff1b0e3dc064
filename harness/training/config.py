"""The ``training``, ``evaluation`` and ``tracking`` sections of a submission. Light: no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from harness.data.corruptions.config import VERSION, CorruptionsConfig
from harness.documents import Section
from harness.errors import suggestion
from harness.training.balancing import BALANCING
from harness.training.balancing.config import BalancingConfig, EqualConfig
from harness.training.placeholders.config import PlaceholderTrainingConfig

Share = Annotated[float, Field(gt=0, lt=1)]

_ORDERED = ("continual", "sequential", "curriculum")
_SAME_RESULT = {"checkpoint_every", "checkpoints_kept", "gradient_checkpointing", "workers", "log_gradients"}
_SAME_RESULT |= {"log_affinity"}
_ONLY_OF_SCHEDULE = {"milestones": "step", "factor": "step", "power": "poly"}


class RegimeConfig(Section):
    """Which tasks a step trains.

    ``joint``: all of them. ``mt_dnn``: one, in random order. ``continual``: one task after another. ``sequential``: in
    every stage one more. ``curriculum``: single tasks, then pairs, then triples, up to all.

    Attributes:
        order: The data sets in the order in which they are learned (``continual``, ``sequential``, ``curriculum``);
            None means that of `tasks`.
        sampling: ``mt_dnn``: how many batches a task gets by the number n of batches in its images: in proportion to n,
            to its root, to n^(1/temperature), or equally many.
        temperature: ``sampling: temperature``: 1 is proportional, the larger the more alike.
    """

    name: str = "joint"
    order: tuple[str, ...] | None = None
    sampling: Literal["proportional", "sqrt", "temperature", "uniform"] = "proportional"
    temperature: float = Field(default=5.0, ge=1)

    @model_validator(mode="after")
    def _used(self) -> RegimeConfig:
        if self.order is not None and self.name not in _ORDERED:
            raise ValueError(f"order: the regime {self.name} has none; it is for {', '.join(_ORDERED)}")
        if self.sampling != "proportional" and self.name != "mt_dnn":
            raise ValueError(f"sampling: only regime {{name: mt_dnn}} has it, not {self.name}")
        if self.temperature != type(self).model_fields["temperature"].default and self.sampling != "temperature":
            raise ValueError(f"temperature: needs sampling: temperature, not {self.sampling}")
        return self


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
    """Learning rate over training: linear warm-up, then one of four shapes.

    Attributes:
        name: ``cosine`` to 0, ``step`` at milestones, ``poly`` to 0, or ``constant``.
        warmup: Share of all steps spent warming up.
        milestones: ``step``: after these shares of all steps the rate is multiplied by `factor`. The default is
            detection's usual schedule: 60,000 and 80,000 of 90,000 steps.
        factor: ``step``.
        power: ``poly``: of the share of the steps that is left; 0.9 is usual for segmentation.
    """

    name: Literal["cosine", "step", "poly", "constant"] = "cosine"
    warmup: float = Field(default=0.1, ge=0, le=1)
    milestones: tuple[Share, ...] = Field(default=(0.667, 0.889), min_length=1)
    factor: float = Field(default=0.1, gt=0, lt=1)
    power: float = Field(default=0.9, gt=0, le=10)

    @model_validator(mode="after")
    def _used(self) -> ScheduleConfig:
        for key, owner in _ONLY_OF_SCHEDULE.items():
            if self.name != owner and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key}: only schedule {{name: {owner}}} has it, not {self.name}")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones: {list(self.milestones)} must ascend")
        return self


class SelectionConfig(Section):
    """Keep the weights that score best on each card's selection split, never those of the last step as such.

    The score is the mean over tasks of each task's main metric. The first of equally good weights is kept.

    Attributes:
        every: Steps from one look to the next; there is always one after the last step.
        patience: Training ends after so many looks in a row without a better score; None means never.
    """

    every: int = Field(ge=1)
    patience: int | None = Field(default=None, ge=1)


class TrainingConfig(Section):
    """How the network is trained.

    Attributes:
        placeholders: What placeholder tokens are trained for beside the tasks, and what they stand in for.
        steps: Batches of each task. Under the regime ``joint`` that is the number of optimizer steps; under others
            there are more of these (docs/regimes.md).
        gradient_clip: Largest norm of the whole gradient; None means no clipping.
        accumulation: In how many parts, one after another, each process takes a step's batches, for less memory. It
            does not change what a step sees; batch norms see the parts.
        ema: Score and store an average of the weights instead of the last ones: the share of it that stays at each
            step, e.g. 0.999, which looks back about 1,000 steps; None means no average.
        selection: Keep the best weights on the selection splits, and end early; None means the last weights.
        max_minutes: End training after so much time, all parts of an interrupted run together; None means no limit.
            The learning rate follows `steps` all the same.
        compile: Compile the part that all tasks share with torch.compile. Results differ in the last digits; what
            asks which weights a task reaches is refused.
        gradient_checkpointing: Keep only what goes into each stage of a backbone and compute the stage again when
            gradients come back: less memory for about a third more time. Does not change the result.
        precision: ``32``, or mixed ``bf16`` or ``16`` (GPUs only).
        workers: Loader processes per task; 0 loads in the training process.
        on_bad_image: What to do with a training image that cannot be read: ``stop``, or ``skip`` it, take the next one
            and say so in the record. Images to be scored are never skipped.
        checkpoint_every: Steps between checkpoints. Does not change the result.
        checkpoints_kept: How many of them stay until the run is done, from the newest on: should one be damaged, the
            next older one is taken. Does not change the result.
        log_every: Steps between points of the learning curves.
        log_gradients: Steps between points with the cosines of the tasks' gradients, which cost a backward pass per
            task; None means none, but methods that have these gradients anyway show them at every point. Does not
            change the result.
        log_affinity: Steps between points with the affinities of the tasks (TAG; Fifty 2021): how a gradient step for
            one changes the losses of the others. Each takes about two steps' time per task; None means none. Does not
            change the result.
    """

    regime: RegimeConfig = RegimeConfig()
    balancing: BalancingConfig = EqualConfig()
    placeholders: PlaceholderTrainingConfig = PlaceholderTrainingConfig()
    steps: int = Field(ge=1)
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    gradient_clip: float | None = Field(default=10.0, gt=0)
    accumulation: int = Field(default=1, ge=1)
    ema: float | None = Field(default=None, gt=0, lt=1)
    selection: SelectionConfig | None = None
    max_minutes: float | None = Field(default=None, gt=0)
    compile: bool = False
    gradient_checkpointing: bool = False
    precision: Literal["32", "bf16", "16"] = "32"
    workers: int = Field(default=0, ge=0, le=64)
    on_bad_image: Literal["stop", "skip"] = "stop"
    checkpoint_every: int = Field(default=100, ge=1)
    checkpoints_kept: int = Field(default=2, ge=1)
    log_every: int = Field(default=25, ge=1)
    log_gradients: int | None = Field(default=None, ge=1)
    log_affinity: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _compiled_or_recomputed(self) -> TrainingConfig:
        if self.compile and self.gradient_checkpointing:
            raise ValueError("gradient_checkpointing does not go with compile: true; leave one of them out")
        return self

    def science(self) -> dict[str, Any]:
        """What a run's result depends on, as plain JSON values, without what is switched off.

        What is off is left out, so that a key which is added later changes no fingerprint.
        """
        content = self.model_dump(mode="json", exclude=_SAME_RESULT)
        for key in ("accumulation", "ema", "selection", "max_minutes", "compile"):
            if getattr(self, key) == type(self).model_fields[key].default:
                del content[key]
        for key, owner in _ONLY_OF_SCHEDULE.items():
            if self.schedule.name != owner:
                del content["schedule"][key]
        del content["placeholders"]
        if switched_on := self.placeholders.science():
            content["placeholders"] = switched_on
        regime = content["regime"]
        for key, used in (
            ("order", self.regime.order is not None),
            ("sampling", self.regime.name == "mt_dnn"),
            ("temperature", self.regime.sampling == "temperature"),
        ):
            if not used:
                del regime[key]
        return content

    @model_validator(mode="after")
    def _substitution_fits(self) -> TrainingConfig:
        if self.placeholders.substitution is not None:
            self.placeholders.substitution.check_regime(self.regime.name)
        return self

    @field_validator("balancing", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        name = value.get("name", "equal") if isinstance(value, dict) else None
        if name is not None and str(name) not in BALANCING:
            raise ValueError(f"name: {name!r} is unknown{suggestion(str(name), BALANCING, 'harness ls balancing')}")
        return value

    @field_validator("precision", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class EvaluationConfig(Section):
    """How the trained network is scored.

    Attributes:
        batch_size: Images per forward pass.
        limit: Use at most so many images of every split and take at most so many steps: a smoke run, never ranked.
        corruptions: Score on corrupted images, too; None means no. Training is the same either way.
        train_gap: Score so many training images, too, without augmentation, chosen by the seed: how much better the
            network is on what it has seen. None means none. Training is the same either way.
        relatedness: Send so many evaluation images through every task's path and record how alike the tasks' features,
            tokens and outputs are (docs/analysis.md). None means none. Training is the same either way.
    """

    batch_size: int = Field(default=64, ge=1, le=65536)
    limit: int | None = Field(default=None, ge=1)
    corruptions: CorruptionsConfig | None = None
    train_gap: int | None = Field(default=None, ge=2)
    relatedness: int | None = Field(default=None, ge=10, le=5000)

    def science(self) -> dict[str, Any]:
        """What a record depends on, as plain JSON values, without what is switched off."""
        content = self.model_dump(mode="json", exclude_none=True)
        if self.corruptions is not None:
            content["corruptions"]["version"] = VERSION
        return {"limit": None} | content


class TrackingConfig(Section):
    """Weights & Biases: ``offline`` writes local files only and never asks anything."""

    wandb: Literal["offline", "online", "disabled"] = "offline"
