"""What the objectives of placeholder tokens get to see of a forward pass in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from harness.data.batches import Batch, VqaBatch
from harness.models.features import Features
from harness.models.placeholders import Placeholders, Seen

# Among the shares of a part: what the mean of a task's images, and what the part itself, counts for.
IMAGES, PART = "images/", "part"


@dataclass(frozen=True)
class StepTokens:
    """Tokens of one forward pass, by task.

    Attributes:
        batches: What was fed.
        images: float [B, K, d], the tokens of each image after the backbone; of tasks that read images.
        ends: float [N, K, d], the tokens where they end: N is B, or for VQA the number of questions, behind whose text
            and fusion sites they are.
        seen: The map that the tokens of each image read last.
        placeholders: Where they come from.
        encode: What the shared part of the network makes of other images; batch norms do not remember them.
        shares: See `MultiTaskNetwork.forward`.
    """

    batches: Mapping[str, Batch]
    images: Mapping[str, Tensor]
    ends: dict[str, Tensor]
    seen: Mapping[str, Seen]
    placeholders: Placeholders
    encode: Callable[[Mapping[str, Batch]], dict[str, Features]]
    shares: Mapping[str, float] | None

    def mean_over_images(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The mean over tasks of losses that are means over the images of each; in parts of a step, this one's share.

        Args:
            losses: Scalars, one at least.
        """
        return self._mean(losses, {name: self._share(IMAGES + name) for name in losses})

    def mean_over_ends(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The same of means over what `ends` holds, one task at least."""
        asked = {name for name, batch in self.batches.items() if isinstance(batch, VqaBatch)}
        return self._mean(losses, {name: self._share(name if name in asked else IMAGES + name) for name in losses})

    @property
    def part(self) -> float:
        """What this part counts for, where a loss is no mean over samples: those of all parts sum to 1."""
        return self._share(PART)

    def _share(self, key: str) -> float:
        return 1.0 if self.shares is None else self.shares[key]

    @staticmethod
    def _mean(losses: Mapping[str, Tensor], shares: Mapping[str, float]) -> Tensor:
        total = sum(loss * shares[name] for name, loss in losses.items())
        assert isinstance(total, Tensor)
        return total / len(losses)


class TokenObjectives(Protocol):
    """What a network keeps to train its tokens: a module that is called once in each forward pass of training."""

    step: int

    def __call__(self, tokens: StepTokens) -> dict[str, Tensor]:
        """Scalar terms of the loss, by what the learning curves call them, coefficients and shares included."""
