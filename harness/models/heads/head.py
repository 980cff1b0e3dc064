"""What all heads have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Head(nn.Module):
    """From features to a task's loss and predictions; what the methods take is the task's own.

    Attributes:
        exclusive: Whether one class at most is right at each place of `outputs` (softmax), not any number (sigmoid).
        measuring: Whether anybody wants to know how well it does on the batches that it computes its loss for.
        indicator: That, from 0 to 1, of the last batch: a scalar.
    """

    exclusive: bool = True
    measuring: bool = False
    indicator: Tensor | None = None

    loss: Callable[..., Tensor]
    count: Callable[[Any], int]
    predict: Callable[..., Any]
    outputs: Callable[..., tuple[Tensor, ...]]

    def output_channels(self, classes: int) -> int:
        """C of `outputs`, for a task of so many classes."""
        return classes

    def note(self, measure: Callable[[], Tensor]) -> None:
        """Called with each loss; `measure` is called only if anybody wants to know."""
        if self.measuring:
            with torch.no_grad():
                self.indicator = measure().float()
