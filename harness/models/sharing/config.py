"""The ``model.sharing`` section: one class per architecture, chosen by its name. Light: no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from harness.documents import Section
from harness.errors import suggestion
from harness.models.sharing import SHARING
from harness.models.sharing.options import (
    CgcConfig,
    Coefficient,
    CrossStitchConfig,
    DynamicRoutingConfig,
    MlMmoeConfig,
    MmoeConfig,
    MoeConfig,
    MtanConfig,
    PleConfig,
    SluiceConfig,
)


class HardConfig(Section):
    """How tasks share parameters. ``hard``: one backbone, neck and question encoder, a head per task.

    Attributes:
        fusion: What heads that read the pyramid get of its levels. ``none``: each as it is. ``concat``: at every
            stride all levels, concatenated and projected. ``attention``: their sum, weighed at every position.
        taps: Where heads sit. ``parallel``: all on the trunk. ``serial``: each on a block of its own, on top of the
            block of the task before it in `tasks`. ``hierarchical``: those in `depths` on earlier stages of the
            backbone.
        depths: ``hierarchical``: by data set the stride of the deepest stage that it reads.
    """

    name: Literal["hard"] = "hard"
    fusion: Literal["none", "concat", "attention"] = "none"
    taps: Literal["parallel", "serial", "hierarchical"] = "parallel"
    depths: dict[str, Annotated[int, Field(ge=1, le=1024)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _used(self) -> HardConfig:
        if bool(self.depths) != (self.taps == "hierarchical"):
            raise ValueError(
                "depths: goes with taps: hierarchical and with nothing else, e.g. {shapes-segmentation: 8}"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is off is left out, so that it changes no fingerprint."""
        content: dict[str, Any] = dump(self)
        for key in ("fusion", "taps", "depths"):
            if getattr(self, key) == type(self).model_fields[key].get_default(call_default_factory=True):
                content.pop(key, None)
        return content


class SingleConfig(Section):
    """A trunk per task; nothing is shared but placeholder tokens."""

    name: Literal["single"]


class SoftConfig(Section):
    """A trunk per task, kept alike by a penalty.

    Attributes:
        coefficient: λ, what the penalty is multiplied with.
        norm: Of what. ``l2``: the squared distance of each task's weights from their mean. ``trace``: the trace norm
            of the tasks' weights, stacked tensor by tensor. ``l21``: the sum over weights of their length across tasks.
    """

    name: Literal["soft"]
    coefficient: Coefficient = 1e-3
    norm: Literal["l2", "trace", "l21"] = "l2"


DatasetName = Annotated[str, Field(min_length=1, max_length=200)]


class AsymmetricConfig(Section):
    """A trunk per task; a task also reads other tasks' features, without gradient.

    Attributes:
        sources: By data set, those of the tasks that it reads from; tasks left out read from none. None: each task
            reads from all that come before it in the submission.
    """

    name: Literal["asymmetric"]
    sources: dict[DatasetName, tuple[DatasetName, ...]] | None = None


class CustomizedConfig(Section):
    """A shared trunk and a trunk per task.

    Attributes:
        combine: How features of both become one: ``sum``, or ``concat``: concatenated and projected.
    """

    name: Literal["customized"]
    combine: Literal["sum", "concat"] = "sum"


def _name(value: Any) -> str:
    return str(value.get("name", "hard") if isinstance(value, dict) else getattr(value, "name", "hard"))


def _known(value: Any) -> Any:
    name = _name(value)
    if name not in SHARING:
        raise ValueError(f"name: {name!r} is unknown{suggestion(name, SHARING, 'harness ls sharing')}")
    return value


SharingConfig = Annotated[
    Annotated[
        Annotated[HardConfig, Tag("hard")]
        | Annotated[SingleConfig, Tag("single")]
        | Annotated[SoftConfig, Tag("soft")]
        | Annotated[AsymmetricConfig, Tag("asymmetric")]
        | Annotated[CustomizedConfig, Tag("customized")]
        | Annotated[CrossStitchConfig, Tag("cross_stitch")]
        | Annotated[SluiceConfig, Tag("sluice")]
        | Annotated[MtanConfig, Tag("mtan")]
        | Annotated[DynamicRoutingConfig, Tag("dynamic_routing")]
        | Annotated[MoeConfig, Tag("moe")]
        | Annotated[MmoeConfig, Tag("mmoe")]
        | Annotated[MlMmoeConfig, Tag("ml_mmoe")]
        | Annotated[CgcConfig, Tag("cgc")]
        | Annotated[PleConfig, Tag("ple")],
        Discriminator(_name),
    ],
    BeforeValidator(_known),
]
