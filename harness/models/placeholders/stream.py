"""The tokens of one batch on their way through the network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from harness.models.placeholders.adapter import Adapter
from harness.models.placeholders.dynamic import DynamicStart
from harness.models.placeholders.ways import key_of

Edit = Callable[[str, Tensor], Tensor]


@dataclass(frozen=True)
class Rules:
    """What holds for the tokens at sites, apart from what happens there.

    Attributes:
        edit: See `Placeholders.edit`.
        levels: Which level's tokens a site uses, by name; those that are left out use level 0.
        opened: How many levels are open; None means all. Sites of the others do nothing.
        modalities: What is added to the tokens at a site, float [d] by name.
        dynamic: Makes the offset that samples start with, at the first site.
    """

    edit: Edit | None = None
    levels: Mapping[str, int] = field(default_factory=dict)
    opened: int | None = None
    modalities: Mapping[str, Tensor] = field(default_factory=dict)
    dynamic: DynamicStart | None = None


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

    Each level has a state of its own, which its sites hand on.

    Args:
        sites: What happens at each site, by key.
        tokens: float [B, K, d], the state that the samples start with; or one of each level.
        visits: How often each site fired so far, by name.
        task: Dataset name of the samples, once they are one task's.
        rules: See `Rules`.
        waiting: int64 [B], number of each sample's task, until the first site makes the offset of dynamic tokens.
        column: Of whose trunk the sites are that are visited next, followed by a slash: what their names begin with.

    Attributes:
        seen: The feature map that was met last.
    """

    seen: Seen | None = None

    def __init__(
        self,
        sites: Mapping[str, nn.Module],
        tokens: Tensor | Sequence[Tensor],
        visits: Counter[str] | None = None,
        task: str = "",
        rules: Rules | None = None,
        waiting: Tensor | None = None,
        column: str = "",
    ) -> None:
        self._sites = sites
        self._states = [tokens] if isinstance(tokens, Tensor) else list(tokens)
        self._rules = rules if rules is not None else Rules()
        self._waiting = waiting
        self._column = column
        self.visits: Counter[str] = visits if visits is not None else Counter()
        self.task = task

    @property
    def tokens(self) -> Tensor:
        """The state of the tokens, float [B, K, d]; with several levels those of all open ones, one after another."""
        opened = self._states[: self._rules.opened]
        return opened[0] if len(opened) == 1 else torch.cat(opened, 1)

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
        name = self._visit(site)
        if grid is not None:
            self.seen = Seen(name, features, padding, grid)
        module = self._sites[key_of(name)]
        if isinstance(module, Adapter):
            return module(features)
        self._start(name, features, padding)
        level = self._level(name)
        if level is None:
            return features
        edit = partial(self._rules.edit, name) if self._rules.edit is not None else None
        shift = self._rules.modalities.get(name)
        if shift is None:
            features, self._states[level] = module(features, self._states[level], padding, edit)
            return features
        features, tokens = module(features, self._states[level] + shift, padding, edit)
        self._states[level] = tokens - shift
        return features

    def prefix(self, site: str, features: Tensor | None = None, padding: Tensor | None = None) -> Tensor:
        """The tokens of each sample, to be inserted into a sequence at a site.

        Args:
            site: Its name.
            features: float [B, N, C], the sequence without them; dynamic tokens need it.
            padding: bool [B, N], True where it is padding.

        Returns:
            float [B, K, C]; while the site's level is closed [B, 0, C].
        """
        name = self._visit(site)
        if features is not None:
            self._start(name, features, padding)
        level = self._level(name)
        tokens = self._states[0][:, :0] if level is None else self._seen(name, level)
        inserted: Tensor = self._sites[key_of(name)](tokens)
        return inserted

    def shift(self, logits: Tensor, dim: int = 1) -> Tensor:
        """With placement ``output``, add the task's learned vector to its logits; otherwise return them as they are.

        Args:
            logits: float [B, ..., C, ...].
            dim: Where the C classes are.
        """
        site = output_site(self.task)
        if key_of(site) not in self._sites:
            return logits
        self.visits[site] += 1
        vector = self._sites[key_of(site)](self._seen(site, 0).mean(1))
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
        waiting = self._waiting[rows] if self._waiting is not None else None
        states = [state[rows] for state in self._states]
        found = TokenStream(self._sites, states, Counter(self.visits), named, self._rules, waiting, self._column)
        if self.seen is not None and isinstance(rows, slice):
            padding = self.seen.padding[rows] if self.seen.padding is not None else None
            found.seen = replace(self.seen, features=self.seen.features[rows], padding=padding)
        return found

    def within(self, column: str) -> TokenStream:
        """The stream as it goes through the trunk of a task, whose sites have the names that the trunk knows.

        Args:
            column: Name of the task; empty for outside of all trunks.
        """
        begins = f"{column}/" if column else ""
        visits = Counter(self.visits)
        found = TokenStream(self._sites, self._states, visits, self.task, self._rules, self._waiting, begins)
        found.seen = self.seen
        return found

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

    def _visit(self, site: str) -> str:
        """Count the visit; returns the site's name in the whole network."""
        name = f"{self._column}{site}"
        self.visits[name] += 1
        return name

    def _start(self, name: str, features: Tensor, padding: Tensor | None) -> None:
        """Add the offset of dynamic tokens at the first site."""
        if self._waiting is None or self._rules.dynamic is None:
            return
        offset = self._rules.dynamic(key_of(name), features, padding, self._waiting)
        parts = offset.split([state.shape[1] for state in self._states], 1)
        self._states = [state + part for state, part in zip(self._states, parts, strict=True)]
        self._waiting = None

    def _level(self, name: str) -> int | None:
        """The level of a site, None while it is closed."""
        level = self._rules.levels.get(name, 0)
        return level if self._rules.opened is None or level < self._rules.opened else None

    def _seen(self, name: str, level: int) -> Tensor:
        """What is made use of at a site that does not read."""
        shift = self._rules.modalities.get(name)
        tokens = self._states[level] if shift is None else self._states[level] + shift
        return tokens if self._rules.edit is None else self._rules.edit(name, tokens)


def output_site(task: str) -> str:
    """Name of the site at the logits of a task."""
    return f"output.{task}"
