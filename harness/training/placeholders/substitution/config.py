"""The ``training.placeholders.substitution`` section of a submission. Light: no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from harness.documents import Section

_ONLY_OF = {
    "folds": "cross_validation",
    "every": "adaptive",
    "temperature": "adaptive",
    "epsilon": "adaptive",
    "held_out": "adaptive",
}
_RATIOS = {"random": 0.15, "cross_validation": 0.15, "progressive": 0.3, "adaptive": 0.15}


class SubstitutionConfig(Section):
    """In training a share of a task's features is replaced by what another task's head says about them.

    X_M ← G_τ(sg O_τ): at the positions M of the features that the task's head reads stands the output of the head of
    task τ on the same features, projected by a 1x1 convolution. In evaluation nothing is replaced.

    Attributes:
        strategy: Who is τ. ``random``: any other task, for each batch and task. ``cross_validation``: each fold of the
            images has a task of its own, and a head of it that was not trained on that fold. ``progressive``: tasks of
            small loss first, and more of them and of the positions as training goes on. ``adaptive``: mostly the task
            whose output a small model expects to help most.
        ratio: ρ, the share of the positions; None means 0.15, and for ``progressive``, whose largest it is, 0.3.
        folds: ``cross_validation``: into how many folds a hash of their ids puts the images.
        every: ``adaptive``: steps from one look at gains to the next.
        temperature: ``adaptive``: expected gains are divided by it before the softmax that tasks are drawn from.
        epsilon: ``adaptive``: how often any task is drawn instead.
        held_out: ``adaptive``: the share of each task's training images, by a hash of their ids, that is not trained on
            but tells gains.
    """

    strategy: Literal["random", "cross_validation", "progressive", "adaptive"]
    ratio: float | None = Field(default=None, gt=0, le=1)
    folds: int = Field(default=5, ge=2, le=100)
    every: int = Field(default=50, ge=1)
    temperature: float = Field(default=0.1, gt=0)
    epsilon: float = Field(default=0.1, ge=0, le=1)
    held_out: float = Field(default=0.05, gt=0, le=0.5)

    @model_validator(mode="after")
    def _used(self) -> SubstitutionConfig:
        for key, owner in _ONLY_OF.items():
            if getattr(self, key) != type(self).model_fields[key].default and self.strategy != owner:
                raise ValueError(f"{key}: only strategy: {owner} has it, not {self.strategy}; leave it out")
        return self

    @property
    def share(self) -> float:
        """ρ, or its largest value."""
        return _RATIOS[self.strategy] if self.ratio is None else self.ratio

    def check_regime(self, regime: str) -> None:
        """See to it that steps have what the strategy needs.

        Raises:
            ValueError: They have not.
        """
        if self.strategy == "adaptive" and regime != "joint":
            raise ValueError(
                "placeholders.substitution.strategy: adaptive compares the gradients of all tasks in a step, and under"
                f" regime {regime} steps do not train all; take regime joint, or another strategy"
            )
