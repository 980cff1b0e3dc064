"""The equal-parameter control: what the parameters of an exchange site do without tokens."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Adapter(nn.Module):
    """A bottleneck adapter: X + W_up · GELU(W_down LN(X)), with W_up = 0 at the start (Houlsby 2019, §2.1).

    Its width a' is chosen so that its 2C(a'+1) parameters are as close as can be to the 2C(a+1) + 2d + 4ad of the
    exchange site that it stands for: a' = a + (d + 2ad)/C, rounded. The difference is C parameters at most.

    Args:
        channels: C, the feature width.
        width: d, the token width of the exchange site.
        attention_width: a, the width in which it attends.

    Attributes:
        bottleneck: a'.
        exchange_parameters: How many parameters the exchange site has.
    """

    def __init__(self, channels: int, width: int, attention_width: int) -> None:
        super().__init__()
        self.bottleneck = round(attention_width + (width + 2 * attention_width * width) / channels)
        self.exchange_parameters = 2 * channels * (attention_width + 1) + 2 * width + 4 * attention_width * width
        self.norm = nn.LayerNorm(channels)
        self.down = nn.Linear(channels, self.bottleneck, bias=False)
        self.up = nn.Linear(self.bottleneck, channels, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, N, C] to the same shape, each position by itself."""
        written: Tensor = self.up(F.gelu(self.down(self.norm(features))))
        return features + written
