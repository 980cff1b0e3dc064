"""The one parameter that all samples start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from harness.data.transforms import derive_seed
from harness.errors import HarnessError

STD = 0.02


class PlaceholderBank(nn.Module):
    """The tokens P, one float32 parameter [K, d] shared by all tasks, stages and modalities; with levels [S, K, d].

    They start at N(0, 0.02²). Parameters: S·K·d, none of them trained where the tokens are frozen or resampled.

    Args:
        count: K, number of tokens; 0 for none (then the parameter is empty).
        width: d, width of a token.
        tasks: Give each of these T tasks K/T rows of its own instead (the control that takes the sharing away);
            empty shares all rows. Either way the parameter and its random start are the same.
        frozen: Keep the random start.
        levels: S, number of sets of tokens. The first one starts as without levels.
        resampled: In training, take a fresh draw at every `advance` in place of the parameter, which is not trained.

    Raises:
        HarnessError: K tokens cannot be shared out among T tasks.
    """

    def __init__(
        self,
        count: int,
        width: int,
        tasks: Sequence[str] = (),
        frozen: bool = False,
        levels: int = 1,
        resampled: bool = False,
    ) -> None:
        super().__init__()
        if tasks and count % len(tasks):
            raise HarnessError(
                f"model.placeholders.count: {count} tokens cannot be shared out among {len(tasks)} tasks;"
                f" take a multiple of {len(tasks)}, or sharing: all"
            )
        shape = (count, width) if levels == 1 else (levels, count, width)
        self.tokens = nn.Parameter(torch.empty(shape), requires_grad=count > 0 and not frozen and not resampled)
        self.levels = levels
        self._index = {task: index for index, task in enumerate(tasks)}
        self._seed = torch.initial_seed()
        if count:
            nn.init.normal_(self.tokens if levels == 1 else self.tokens[0], std=STD)
        if count and levels > 1:
            # From a stream of their own: what is drawn after the first level is the same with and without others.
            nn.init.normal_(self.tokens[1:], std=STD, generator=_generator("placeholder levels", self._seed))
        self.drawn: Tensor | None
        self.register_buffer("drawn", self.tokens.detach().clone() if resampled else None, persistent=False)

    def advance(self, step: int) -> None:
        """Draw what a step of training uses, where tokens are resampled.

        The draw is a function of the run's seed and the step: the same in every process and in a resumed run.

        Args:
            step: Number of the step, from 0.
        """
        if self.drawn is not None:
            generator = _generator("placeholder draw", self._seed, step)
            self.drawn.copy_(torch.empty(self.drawn.shape).normal_(std=STD, generator=generator))

    def forward(self, samples: int | Mapping[str, int], level: int = 0) -> Tensor:
        """Copies of P that the samples of a batch start from.

        Args:
            samples: B; with rows per task, the number of samples of each task, in the order of the batch.
            level: Which set of tokens.

        Returns:
            float [B, K, d], or [B, K/T, d] with rows per task.
        """
        tokens = self.drawn if self.drawn is not None and self.training else self.tokens
        tokens = tokens if self.levels == 1 else tokens[level]
        if isinstance(samples, int):
            if self._index:
                raise ValueError("tokens of each task's own need the number of samples of every task")
            return tokens.repeat(samples, 1, 1)
        if not self._index:
            return tokens.repeat(sum(samples.values()), 1, 1)
        banks = tokens.unflatten(0, (len(self._index), -1))
        return torch.cat([banks[self._index[task]].repeat(count, 1, 1) for task, count in samples.items()])


def _generator(*key: object) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(*key))
