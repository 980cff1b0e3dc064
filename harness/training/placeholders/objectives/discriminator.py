"""Discriminator: the tokens learn to hide which task they are of."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.documents import Section
from harness.models.step_tokens import StepTokens
from harness.training.placeholders.objectives.config import DiscriminatorConfig
from harness.training.placeholders.objectives.objective import Objective, Setting, perceptron


class Discriminator(Objective):
    """Cross-entropy of D(R_λ(z̄)) against the task, mean over samples, then over tasks.

    z̄ is the mean of a sample's final tokens and D a perceptron of two layers. R_λ(z) = z and dR_λ/dz = -λ: D learns to
    tell the tasks apart, everything before it to make that hard. Source: Ganin et al. 2016 (arXiv:1505.07818), section
    4.2, eqs. 16 to 18, with λ constant.

    Args:
        config: λ.
        setting: Tells tasks and widths.
    """

    def __init__(self, config: Section, setting: Setting) -> None:
        assert isinstance(config, DiscriminatorConfig)
        super().__init__(config, setting)
        self._factor = config.weight
        self._index = {task: index for index, task in enumerate(setting.tasks)}
        self.classifier = perceptron(setting.width, len(self._index))

    def forward(self, tokens: StepTokens) -> Tensor | None:
        """See `Objective`."""
        losses = {}
        for task, ends in tokens.ends.items():
            logits = self.classifier(reversed_gradient(ends.mean(1), self._factor))
            wanted = torch.full((len(logits),), self._index[task], device=logits.device)
            losses[task] = F.cross_entropy(logits.float(), wanted)
        return tokens.mean_over_ends(losses)


def reversed_gradient(value: Tensor, factor: float) -> Tensor:
    """The value itself, whose gradient is multiplied by -factor."""
    reversed_: Tensor = _Reversal.apply(value, factor)
    return reversed_


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, value: Tensor, factor: float) -> Tensor:
        context.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -context.factor * gradients[0], None
