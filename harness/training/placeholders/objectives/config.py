"""Sections of the objectives of placeholder tokens. Light: no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from harness.documents import Section
from harness.models.config import BackboneConfig
from harness.models.weight_files import weights_digest

TEACHER_WEIGHTS = "training.placeholders.distilled.teacher.weights"

Weight = Annotated[float, Field(gt=0, le=1000)]


class AlignmentConfig(Section):
    """The mean tokens of the tasks are drawn together, while a hinge keeps those of different images apart.

    Attributes:
        weight: Of the squared distance between the mean tokens of every two tasks, less what means of a step's few
            images scatter by chance.
        variance_weight: Of the hinge that keeps each coordinate's standard deviation over a task's samples from falling
            below 1; with 0 constant tokens are as good as any. By default both weights are equal, as in VICReg; a hinge
            of 1 takes over the training of a small network.
    """

    weight: Weight = 0.05
    variance_weight: float = Field(default=0.05, ge=0, le=1000)


class AuxiliaryConfig(Section):
    """A small classifier reads from the mean token of an image something that no label says.

    Attributes:
        target: ``dataset``: which data set the image came from. ``rotation``: by how many quarter turns a further copy
            of it was turned (Gidaris 2018), which about doubles the time that the shared part takes.
        weight: Of its cross-entropy.
    """

    target: Literal["dataset", "rotation"]
    weight: Weight = 0.1


class AdversarialConfig(Section):
    """Each step also learns with tokens that are moved against it: L(P) + weight · L(P + δ), at twice the time.

    δ = epsilon · rms(P) · sign ∇_P L (the fast gradient sign method; Goodfellow 2015).

    Attributes:
        epsilon: Size of the move, as a share of the tokens' root mean square.
        weight: Of the loss there.
    """

    epsilon: float = Field(default=0.1, gt=0, le=10)
    weight: Weight = 0.5


class DiscriminatorConfig(Section):
    """A discriminator learns which task the mean token is of; the tokens learn to hide it (Ganin 2016).

    Attributes:
        weight: λ, what the discriminator's gradient is multiplied with where it is turned round.
    """

    weight: Weight = 0.1


class TeacherConfig(BackboneConfig):
    """A frozen image network whose pooled features are predicted; its keys are those of ``model.backbone``.

    Attributes:
        random: Take a network that has learned nothing, a control.
    """

    random: bool = False

    @model_validator(mode="after")
    def _knows_something(self) -> TeacherConfig:
        for key in ("frozen", "feature_cache", "batch_norm"):
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key}: a teacher is always frozen and never trained; leave it out")
        given = [key for key in ("pretrained", "weights", "random") if getattr(self, key)]
        if not given:
            raise ValueError(
                f"name: {self.name} has learned nothing that it could teach; set pretrained: true, weights, or, for a"
                " control, random: true"
            )
        if len(given) > 1:
            raise ValueError(f"random: a network with {given[0]} is not one that has learned nothing; leave one out")
        return self

    @property
    def still(self) -> BackboneConfig:
        """The same as a backbone that is frozen wholly."""
        return BackboneConfig.model_validate(self.model_dump(exclude={"random"}) | {"frozen": "all"})


class DistilledConfig(Section):
    """The tokens are made of what another network, or another task, knows.

    Attributes:
        teacher: The tokens start as k-means centres of its features of training images, and the mean token of an image
            predicts its feature of it.
        from_task: A data set among `tasks`: the mean tokens of all others follow mean and spread of this one's.
        weight: Of either; with a teacher, 0 leaves only the start.
        images: How many training images of each task the centres are found on.
    """

    teacher: TeacherConfig | None = None
    from_task: str | None = None
    weight: float = Field(default=0.5, ge=0, le=1000)
    images: int = Field(default=1000, ge=1, le=1_000_000)

    @model_validator(mode="after")
    def _something(self) -> DistilledConfig:
        if self.teacher is None and self.from_task is None:
            raise ValueError("teacher: neither teacher nor from_task is given; name one of them")
        if self.from_task is not None and not self.weight:
            raise ValueError("weight: 0 takes from_task away; give a weight above 0, or leave from_task out")
        if self.teacher is None and self.images != type(self).model_fields["images"].default:
            raise ValueError(f"images: {self.images} are for a teacher, and there is none; leave it out")
        return self

    def science(self) -> dict[str, Any]:
        """What a run's result depends on; weights are what they are, not where they lie."""
        content = self.model_dump(mode="json")
        if self.teacher is not None and self.teacher.weights is not None:
            content["teacher"]["weights"] = weights_digest(self.teacher.weights, TEACHER_WEIGHTS)
        return content


class SelfSupervisedConfig(Section):
    """Tokens that read only a part of the last site's feature map predict the rest of it (after MAE; He 2022).

    Attributes:
        mask: Share of the map's positions that are not read, and are predicted.
        weight: Of the mean squared error.
    """

    mask: float = Field(default=0.5, gt=0, lt=1)
    weight: Weight = 0.1
