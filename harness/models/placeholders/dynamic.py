"""Dynamic tokens: what a sample starts from depends on the sample."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RANK = 8
TASK_WIDTH = 16


class DynamicStart(nn.Module):
    """Samples start from P + U · MLP([GAP(X); e_task]), with U = 0 at the start.

    X are the sample's features at the first site that it comes to, normed after pooling, because features of a
    backbone differ in size by orders of magnitude; e_task is a learned vector of width e. The MLP has one hidden layer
    of width h, whose matrix is split into the columns for GAP(X), one part for each first site because widths differ,
    and those for e_task. U, of rank r, makes one offset of all the tokens, so that samples differ in r directions.

    Parameters: Σ over first sites C(h+2), and Te + eh + h + hr + r + r·S·K·d.

    Args:
        firsts: C by the key of each site that some sample comes to first.
        tasks: T, number of tasks.
        tokens: S·K, how many tokens a sample has in all levels.
        width: d, the token width.
        hidden: h.
    """

    def __init__(self, firsts: Mapping[str, int], tasks: int, tokens: int, width: int, hidden: int) -> None:
        super().__init__()
        self.shape = (tokens, width)
        self.norms = nn.ModuleDict({key: nn.LayerNorm(channels) for key, channels in firsts.items()})
        self.pooled = nn.ModuleDict({key: nn.Linear(channels, hidden, bias=False) for key, channels in firsts.items()})
        self.tasks = nn.Embedding(tasks, TASK_WIDTH)
        self.task = nn.Linear(TASK_WIDTH, hidden)
        self.hidden = nn.Linear(hidden, RANK)
        self.up = nn.Linear(RANK, tokens * width, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, key: str, features: Tensor, padding: Tensor | None, tasks: Tensor) -> Tensor:
        """The offset of each sample's tokens.

        Args:
            key: Of the site.
            features: X, float [B, N, C].
            padding: bool [B, N], True where a feature is padding and has no part in the mean; or None.
            tasks: int64 [B], number of each sample's task.

        Returns:
            float [B, S·K, d].
        """
        pooled = self.norms[key](_mean(features, padding))
        hidden = F.gelu(self.pooled[key](pooled) + self.task(self.tasks(tasks)))
        offset: Tensor = self.up(self.hidden(hidden))
        return offset.unflatten(1, self.shape)


def _mean(features: Tensor, padding: Tensor | None) -> Tensor:
    if padding is None:
        return features.mean(1)
    kept = (~padding).to(features.dtype).unsqueeze(-1)
    return torch.sum(features * kept, 1) / kept.sum(1).clamp(min=1)
