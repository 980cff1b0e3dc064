"""How well a head does on a training batch, told beside its loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Indicator(nn.Module):
    """A head that can tell a number from 0 to 1 about the batch that it computed its loss for.

    Attributes:
        measuring: Whether anybody wants to know.
        indicator: The number of the last batch, a scalar.
    """

    measuring: bool = False
    indicator: Tensor | None = None

    def note(self, measure: Callable[[], Tensor]) -> None:
        """Called with each loss; `measure` is called only if anybody wants to know."""
        if self.measuring:
            with torch.no_grad():
                self.indicator = measure().float()
