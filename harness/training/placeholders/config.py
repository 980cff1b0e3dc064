"""The ``training.placeholders`` section of a submission: what is off by default changes nothing."""

from __future__ import annotations

from typing import Any

from harness.documents import Section
from harness.training.placeholders.samples_config import Samples, SamplesConfig


class PlaceholderTrainingConfig(Section):
    """How placeholder tokens take part in training. Every switch is off by default, and all combine.

    Attributes:
        samples: Unlabelled images, of tasks that train on a fraction of their labels.
    """

    samples: Samples = SamplesConfig()

    def science(self) -> dict[str, Any]:
        """The switches that are on, as plain JSON values."""
        return self.model_dump(mode="json", exclude_defaults=True)
