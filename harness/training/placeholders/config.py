"""The ``training.placeholders`` section of a submission: what is off by default changes nothing."""

from __future__ import annotations

from typing import Any

from harness.documents import Section
from harness.training.placeholders.objectives.config import (
    AdversarialConfig,
    AlignmentConfig,
    AuxiliaryConfig,
    DiscriminatorConfig,
    DistilledConfig,
    SelfSupervisedConfig,
)
from harness.training.placeholders.samples_config import Samples, SamplesConfig
from harness.training.placeholders.substitution.config import SubstitutionConfig


class PlaceholderTrainingConfig(Section):
    """How placeholder tokens take part in training. Every switch is off by default, and all combine.

    Attributes:
        alignment: Draw the tasks' mean tokens together, and keep them from collapsing.
        auxiliary: Tell from the tokens of an image where it came from, or how it was turned.
        adversarial: Learn with tokens that are moved against the loss, too.
        discriminator: Hide from a discriminator whose tokens they are.
        distilled: Start the tokens from a teacher's features and predict these, or follow one of the tasks.
        self_supervised: Predict features that the tokens were not allowed to read.
        substitution: Replace a share of a task's features by another task's output; None means that nothing is.
        samples: Unlabelled images, of tasks that train on a fraction of their labels.
    """

    alignment: AlignmentConfig | None = None
    auxiliary: AuxiliaryConfig | None = None
    adversarial: AdversarialConfig | None = None
    discriminator: DiscriminatorConfig | None = None
    distilled: DistilledConfig | None = None
    self_supervised: SelfSupervisedConfig | None = None
    substitution: SubstitutionConfig | None = None
    samples: Samples = SamplesConfig()

    def science(self) -> dict[str, Any]:
        """The switches that are on, whole, as plain JSON values."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        for name in content:
            section = getattr(self, name)
            if isinstance(section, Section):
                science = getattr(section, "science", None)
                content[name] = science() if science is not None else section.model_dump(mode="json")
        return content
