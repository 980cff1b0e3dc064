"""The ``training.balancing`` section of a submission: one class per method, told apart by ``name``. Light: no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from harness.documents import Section

Rate = Annotated[float, Field(gt=0, le=1)]


class EqualConfig(Section):
    """The losses are added up."""

    name: Literal["equal"] = "equal"


class ManualConfig(Section):
    """The losses are weighed by ``tasks[].weight``."""

    name: Literal["manual"]


class UncertaintyConfig(Section):
    """Each loss is divided by a learned variance."""

    name: Literal["uncertainty"]


class ImtlLConfig(Section):
    """Each loss is brought to one by a learned scale."""

    name: Literal["imtl_l"]


class LogConfig(Section):
    """The logarithms of the losses are added up."""

    name: Literal["log"]


class RlwConfig(Section):
    """Weights are drawn at random in every step."""

    name: Literal["rlw"]


class DwaConfig(Section):
    """Losses that fall slowly from epoch to epoch weigh more.

    Attributes:
        temperature: Larger is closer to equal weights.
        epoch: Steps of an epoch, for all tasks alike; None: as many as the task that takes longest needs to see its
            data once.
    """

    name: Literal["dwa"]
    temperature: float = Field(default=2.0, gt=0)
    epoch: int | None = Field(default=None, ge=1)


class DtpConfig(Section):
    """Tasks that do badly weigh more.

    Attributes:
        gamma: How much more.
        smoothing: Share of a step's indicator in the moving average.
    """

    name: Literal["dtp"]
    gamma: float = Field(default=1.0, ge=0, le=10)
    smoothing: Rate = 0.1


class GradNormConfig(Section):
    """Tasks get gradients of like norm, larger where they learn slowly.

    Attributes:
        alpha: How much larger.
        learning_rate: Of the weights.
    """

    name: Literal["gradnorm"]
    alpha: float = Field(default=1.5, ge=0, le=10)
    learning_rate: Rate = 0.025


class FamoConfig(Section):
    """All losses fall at the same relative rate.

    Attributes:
        learning_rate: Of the weights' logits.
        decay: Of the weights' logits towards equal weights.
    """

    name: Literal["famo"]
    learning_rate: Rate = 0.025
    decay: float = Field(default=1e-3, ge=0, le=1)


class PlainJacobianConfig(Section):
    """A method on the tasks' gradients that has no options."""

    name: Literal["pcgrad", "mgda", "imtl_g", "graddrop", "config", "upgrad"]


class CagradConfig(Section):
    """The gradient nearest to the mean one that does most for the task that gains least.

    Attributes:
        c: Radius of the ball around the mean gradient that it is looked for in, as a share of that gradient's norm.
    """

    name: Literal["cagrad"]
    c: float = Field(default=0.4, ge=0, lt=1)


class AlignedMtlConfig(Section):
    """The gradients are made orthogonal and equally long.

    Attributes:
        scale_mode: How long: as the smallest or the median singular value, or the root of their mean square.
    """

    name: Literal["aligned_mtl"]
    scale_mode: Literal["min", "median", "rmse"] = "min"


class GradvacConfig(Section):
    """Gradients are turned towards each other until their cosines are what they usually are.

    Attributes:
        beta: Share of a step's cosine in the moving average.
    """

    name: Literal["gradvac"]
    beta: Rate = 0.01


class FairgradConfig(Section):
    """The gains of the tasks are shared out fairly.

    Attributes:
        alpha: 1 is proportional fairness; more is fairer to the task that gains least.
    """

    name: Literal["fairgrad"]
    alpha: float = Field(default=1.0, gt=0, le=100)


class NashMtlConfig(Section):
    """The Nash bargaining solution between the tasks.

    Attributes:
        update_every: Steps from one solution to the next; its weights are used in between.
        max_norm: Largest norm of the resulting gradient.
    """

    name: Literal["nash_mtl"]
    update_every: int = Field(default=1, ge=1)
    max_norm: float = Field(default=1.0, gt=0)


def _name(value: Any) -> str:
    """The tag; a section without a name is the default one."""
    name = str(value.get("name", "equal") if isinstance(value, dict) else getattr(value, "name", "equal"))
    return _PLAIN if name in PLAIN_JACOBIAN else name


_PLAIN = "plain_jacobian"
PLAIN_JACOBIAN = ("pcgrad", "mgda", "imtl_g", "graddrop", "config", "upgrad")
# Methods that ask which weights each task's loss reaches.
ASKING = (*PLAIN_JACOBIAN, "cagrad", "aligned_mtl", "gradvac", "fairgrad", "nash_mtl", "gradnorm")

BalancingConfig = Annotated[
    Annotated[EqualConfig, Tag("equal")]
    | Annotated[ManualConfig, Tag("manual")]
    | Annotated[UncertaintyConfig, Tag("uncertainty")]
    | Annotated[ImtlLConfig, Tag("imtl_l")]
    | Annotated[LogConfig, Tag("log")]
    | Annotated[RlwConfig, Tag("rlw")]
    | Annotated[DwaConfig, Tag("dwa")]
    | Annotated[DtpConfig, Tag("dtp")]
    | Annotated[GradNormConfig, Tag("gradnorm")]
    | Annotated[FamoConfig, Tag("famo")]
    | Annotated[PlainJacobianConfig, Tag(_PLAIN)]
    | Annotated[CagradConfig, Tag("cagrad")]
    | Annotated[AlignedMtlConfig, Tag("aligned_mtl")]
    | Annotated[GradvacConfig, Tag("gradvac")]
    | Annotated[FairgradConfig, Tag("fairgrad")]
    | Annotated[NashMtlConfig, Tag("nash_mtl")],
    Discriminator(_name, custom_error_type="unknown_choice", custom_error_message="name must be a balancing method"),
]
