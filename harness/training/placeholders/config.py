"""The ``training.placeholders`` section of a submission: what is off by default changes nothing."""

from __future__ import annotations

from typing import Any

from harness.documents import Section
from harness.training.placeholders.substitution.config import SubstitutionConfig


class PlaceholderTrainingConfig(Section):
    """How placeholder tokens take part in training. Every switch is off by default, and all combine.

    Attributes:
        substitution: Replace a share of a task's features by another task's output; None means that nothing is.
    """

    substitution: SubstitutionConfig | None = None

    def science(self) -> dict[str, Any]:
        """The switches that are on, as plain JSON values."""
        return self.model_dump(mode="json", exclude_defaults=True)
