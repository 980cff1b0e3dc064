"""Placeholder tokens: one parameter that every task and modality meets at sites all over the network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from harness.errors import HarnessError
from harness.models.attention import attend
from harness.models.config import PlaceholderConfig

Edit = Callable[[str, Tensor], Tensor]


class PlaceholderBank(nn.Module):
    """The tokens P, one float32 parameter [K, d] shared by all tasks, stages and modalities.

    Args:
        count: K > 0, number of tokens.
        width: d, width of a token.
        tasks: Give each of these T tasks K/T rows of its own instead (the control that takes the sharing away);
            empty shares all rows. Either way the parameter and its random start are the same.
        frozen: Keep the random start.

    Raises:
        HarnessError: K tokens cannot be shared out among T tasks.
    """

    def __init__(self, count: int, width: int, tasks: Sequence[str] = (), frozen: bool = False) -> None:
        super().__init__()
        if tasks and count % len(tasks):
            raise HarnessError(
                f"model.placeholders.count: {count} tokens cannot be shared out among {len(tasks)} tasks;"
                f" take a multiple of {len(tasks)}, or sharing: all"
            )
        self.tokens = nn.Parameter(torch.empty(count, width), requires_grad=not frozen)
        nn.init.normal_(self.tokens, std=0.02)
        self._index = {task: index for index, task in enumerate(tasks)}

    def forward(self, samples: int | Mapping[str, int]) -> Tensor:
        """Copies of P that the samples of a batch start from.

        Args:
            samples: B; with rows per task, the number of samples of each task, in the order of the batch.

        Returns:
            float [B, K, d], or [B, K/T, d] with rows per task.
        """
        if isinstance(samples, int):
            if self._index:
                raise ValueError("tokens of each task's own need the number of samples of every task")
            return self.tokens.repeat(samples, 1, 1)
        if not self._index:
            return self.tokens.repeat(sum(samples.values()), 1, 1)
        banks = self.tokens.unflatten(0, (len(self._index), -1))
        return torch.cat([banks[self._index[task]].repeat(count, 1, 1) for task, count in samples.items()])


class ExchangeSite(nn.Module):
    """Tokens read features, then features read tokens.

    With U = LN(X) W_down and heads over width a:

        Z <- Z + W_r · MHA(query=Z, key=U, value=U)      (read)
        X <- X + W_up · MHA(query=U, key=Z, value=Z)     (write, W_up starts at 0)

    so that a fresh site returns X bit for bit. The read gives the tokens the sample's content; W_r must not start at
    zero as well, or neither would ever learn. Parameters: 2C(a+1) + 2d + 4ad.

    Args:
        channels: C, the feature width.
        width: d, the token width.
        attention_width: a, the width in which they attend.
        heads: Attention heads; divides a.
    """

    def __init__(self, channels: int, width: int, attention_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.feature_norm = nn.LayerNorm(channels)
        self.down = nn.Linear(channels, attention_width, bias=False)
        self.token_norm = nn.LayerNorm(width)
        self.read_query = nn.Linear(width, attention_width, bias=False)
        self.read_out = nn.Linear(attention_width, width, bias=False)
        self.write_key = nn.Linear(width, attention_width, bias=False)
        self.write_value = nn.Linear(width, attention_width, bias=False)
        self.up = nn.Linear(attention_width, channels, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(
        self,
        features: Tensor,
        tokens: Tensor,
        padding: Tensor | None = None,
        edit: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Exchange.

        Args:
            features: float [B, N, C].
            tokens: float [B, K, d].
            padding: bool [B, N], True where a feature is padding: it is not read (and may be written).
            edit: Is given the tokens between reading and writing; what it returns is written and carried on.

        Returns:
            Updated features and tokens, shapes as given.
        """
        low = self.down(self.feature_norm(features))
        query = self.read_query(self.token_norm(tokens))
        tokens = tokens + self.read_out(attend(query, low, low, self.heads, padding))
        if edit is not None:
            tokens = edit(tokens)
        current = self.token_norm(tokens)
        written = attend(low, self.write_key(current), self.write_value(current), self.heads)
        return features + self.up(written), tokens


class Insertion(nn.Linear):
    """Tokens projected to the width of a transformer's embedding, where they are inserted (VPT; Jia 2022)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(width, channels)


class LogitShift(nn.Linear):
    """The mean token projected to a vector of the logits' size; 0 at first.

    On a linear head it is a second bias: nothing should come of it.
    """

    def __init__(self, outputs: int, width: int) -> None:
        super().__init__(width, outputs, bias=False)
        nn.init.zeros_(self.weight)


@dataclass(frozen=True)
class Seen:
    """A feature map as tokens met it.

    Attributes:
        site: Where.
        features: float [B, N, C], the map's positions row by row, after those of class tokens.
        padding: bool [B, N], True where a position was not to be read, or None.
        grid: Height and width of the map.
    """

    site: str
    features: Tensor
    padding: Tensor | None
    grid: tuple[int, int]


class TokenStream:
    """The tokens Z of one batch on their way through the network. It lives for one forward pass.

    Args:
        sites: What happens at each site, by name.
        tokens: float [B, K, d], the state that the samples start with.
        visits: How often each site fired so far.
        task: Dataset name of the samples, once they are one task's.
        edit: See `Placeholders.edit`.

    Attributes:
        seen: The feature map that was met last.
    """

    seen: Seen | None = None

    def __init__(
        self,
        sites: Mapping[str, nn.Module],
        tokens: Tensor,
        visits: Counter[str] | None = None,
        task: str = "",
        edit: Edit | None = None,
    ) -> None:
        self._sites = sites
        self._edit = edit
        self.tokens = tokens
        self.visits: Counter[str] = visits if visits is not None else Counter()
        self.task = task

    def exchange(
        self, site: str, features: Tensor, padding: Tensor | None = None, grid: tuple[int, int] | None = None
    ) -> Tensor:
        """Exchange with features at a site.

        Args:
            site: Its name.
            features: float [B, N, C].
            padding: bool [B, N], True where a feature must not be read.
            grid: Height and width of the feature map whose positions the last features are; None if they are of none.

        Returns:
            The updated features.
        """
        self.visits[site] += 1
        if grid is not None:
            self.seen = Seen(site, features, padding, grid)
        edit = partial(self._edit, site) if self._edit is not None else None
        features, self.tokens = self._sites[_key(site)](features, self.tokens, padding, edit)
        return features

    def prefix(self, site: str) -> Tensor:
        """The tokens of each sample as float [B, K, C], to be inserted into a sequence of that width at a site."""
        self.visits[site] += 1
        return self._sites[_key(site)](self._edited(site))

    def shift(self, logits: Tensor, dim: int = 1) -> Tensor:
        """With placement ``output``, add the task's learned vector to its logits; otherwise return them as they are.

        Args:
            logits: float [B, ..., C, ...].
            dim: Where the C classes are.
        """
        site = output_site(self.task)
        if _key(site) not in self._sites:
            return logits
        self.visits[site] += 1
        vector = self._sites[_key(site)](self._edited(site).mean(1))
        shape = [1] * logits.dim()
        shape[0], shape[dim] = vector.shape
        return logits + vector.view(shape)

    def rows(self, rows: slice | Tensor, task: str | None = None) -> TokenStream:
        """The stream of some samples of the batch.

        Args:
            rows: A slice, or int64 [B'] indices that may repeat.
            task: Dataset name of these samples, if they are one task's.
        """
        named = self.task if task is None else task
        found = TokenStream(self._sites, self.tokens[rows], Counter(self.visits), named, self._edit)
        if self.seen is not None and isinstance(rows, slice):
            padding = self.seen.padding[rows] if self.seen.padding is not None else None
            found.seen = replace(self.seen, features=self.seen.features[rows], padding=padding)
        return found

    def _edited(self, site: str) -> Tensor:
        return self.tokens if self._edit is None else self._edit(site, self.tokens)

    def check(self, expected: Iterable[str]) -> None:
        """Assert that every expected site fired exactly once.

        A site that does not fire (hooks on a checkpointed stage, for one) would silently turn the model into its
        control.

        Raises:
            RuntimeError: A site was missed, or visited twice.
        """
        expected = list(expected)
        if self.visits != Counter(expected):
            wrong = sorted(set(self.visits) | set(expected))
            counts = ", ".join(f"{site} {self.visits[site]}x" for site in wrong)
            raise RuntimeError(f"placeholder sites must fire exactly once per forward pass, but: {counts}")


class Placeholders(nn.Module):
    """The bank and what happens at each of its sites.

    Args:
        config: Sizes and kind; count > 0.
        sites: By site name the width of what is met there: of features (exchange), of the embedding (insertion), or
            the number of logits (output).
        tasks: Dataset names of the submission, in order.

    Raises:
        HarnessError: The tokens cannot be shared out among the tasks.

    Attributes:
        edit: For analyses: is given the name of a site and the tokens, float [B, K, d], as they are there after reading
            and before anything is made of them, and returns those to go on with.
    """

    edit: Edit | None = None

    def __init__(self, config: PlaceholderConfig, sites: Mapping[str, int], tasks: Sequence[str] = ()) -> None:
        super().__init__()
        own = tasks if config.sharing == "per_task" else ()
        self.bank = PlaceholderBank(config.count, config.width, own, config.frozen)
        self.sites = nn.ModuleDict({_key(name): _site(config, channels) for name, channels in sites.items()})

    def begin(self, samples: int | Mapping[str, int]) -> TokenStream:
        """A fresh stream.

        Args:
            samples: B, or the number of samples of each task in the order of the batch.
        """
        task = next(iter(samples)) if isinstance(samples, Mapping) and len(samples) == 1 else ""
        return TokenStream(dict(self.sites.items()), self.bank(samples), task=task, edit=self.edit)


def output_site(task: str) -> str:
    """Name of the site at the logits of a task."""
    return f"output.{task}"


def _site(config: PlaceholderConfig, channels: int) -> nn.Module:
    if config.way == "insert":
        return Insertion(channels, config.width)
    if config.way == "output":
        return LogitShift(channels, config.width)
    return ExchangeSite(channels, config.width, config.attention_width, config.heads)


def _key(site: str) -> str:
    """Site names hold dots, module names must not."""
    return site.replace(".", "/")
