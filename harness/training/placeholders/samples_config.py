"""The ``training.placeholders.samples`` section of a submission. Light: no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from harness.documents import Section

_ONLY_OF_KIND = {"threshold": ("random", "distilled"), "temperature": ("distilled",), "epsilon": ("adversarial",)}


class SamplesConfig(Section):
    """Placeholder samples: training images without a label, of tasks that train on a ``fraction`` of their labels.

    The network is to say the same of two views of such an image: of the image as it is fed in training (the weak view),
    which gives no gradient, and of another. Labels of these images are never read.

    Attributes:
        ratio: Unlabelled images per labelled one: in each step, and in the pool that they are drawn from, as far as the
            training split has as many. 0 is off, whatever the other keys say.
        selection: Which images form the pool: drawn at ``random``, or by ``k_center``, those that are farthest from all
            labelled and chosen ones in the features of the untrained network (Sener & Savarese 2018).
        kind: What the second view is, and what is compared. ``random``: colours changed and a square cut out; it is to
            be classified as the weak view is (FixMatch; Sohn 2020). ``distilled``: the same views; it is to have the
            softened probabilities of the weak view (Hinton 2015). ``adversarial``: the weak view with the small change
            of its pixels that changes the outputs most (virtual adversarial training; Miyato 2018).
        threshold: ``random``, ``distilled``: a place of the output takes part where the weak view's probability of what
            it is, or is not, reaches this, and it weighs by that probability.
        temperature: ``distilled``: what logits are divided by.
        epsilon: ``adversarial``: root mean square of the change, as a share of the range of pixel values.
        weight: What the loss of each task is multiplied with. It is added after balancing.
    """

    ratio: float = Field(default=0.0, ge=0, le=100)
    selection: Literal["random", "k_center"] = "random"
    kind: Literal["random", "distilled", "adversarial"] = "random"
    threshold: float = Field(default=0.95, ge=0.5, lt=1)
    temperature: float = Field(default=2.0, gt=0, le=100)
    epsilon: float = Field(default=0.02, gt=0, le=1)
    weight: float = Field(default=1.0, gt=0, le=1000)

    def batch_size(self, labelled: int) -> int:
        """Unlabelled images in a step with so many labelled ones; halves are rounded up."""
        return int(self.ratio * labelled + 0.5)

    @model_validator(mode="after")
    def _used(self) -> SamplesConfig:
        for key, kinds in _ONLY_OF_KIND.items():
            default = type(self).model_fields[key].default
            if self.ratio and self.kind not in kinds and getattr(self, key) != default:
                raise ValueError(
                    f"{key}: {getattr(self, key):g}, but kind: {self.kind} has none; it is for {' and '.join(kinds)}"
                )
        return self


def _plain_if_off(config: SamplesConfig) -> SamplesConfig:
    """Off is off: what is not used is no part of a submission."""
    return config if config.ratio else SamplesConfig()


Samples = Annotated[SamplesConfig, AfterValidator(_plain_if_off)]
