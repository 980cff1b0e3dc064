"""The bank of tokens and all its sites, as one part of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from harness.errors import HarnessError
from harness.models.placeholders.adapter import Adapter
from harness.models.placeholders.bank import PlaceholderBank
from harness.models.placeholders.config import PlaceholderConfig
from harness.models.placeholders.dynamic import DynamicStart
from harness.models.placeholders.sites import ExchangeSite, Insertion, LogitShift, SecondOrder
from harness.models.placeholders.stream import Edit, Rules, TokenStream
from harness.models.placeholders.ways import key_of, levels_of, modality_of

BORDER = "backbone.border"  # a site before all features


class Placeholders(nn.Module):
    """The bank and what happens at each of its sites.

    What is switched on beside that is drawn last: bank and sites start from the same numbers with it and without it.

    Args:
        config: Sizes and kind; count > 0.
        sites: By site name the width of what is met there: of features (exchange), of the embedding (insertion), or
            the number of logits (output).
        tasks: Dataset names of the submission, in order.
        ways: For each task the sites that its samples come to, in order; None: all of them.

    Raises:
        HarnessError: The tokens cannot be shared out among the tasks, or what is asked for cannot be at these sites.

    Attributes:
        edit: For analyses: is given the name of a site and the tokens, float [B, K, d], as they are there after reading
            and before anything is made of them, and returns those to go on with. Not called where there are no tokens:
            at adapters, and at sites whose level is closed.
        opened: int64 scalar, number of levels that are open. It is kept with the weights, so that weights are scored
            with the levels that they were trained with.
    """

    edit: Edit | None = None

    def __init__(
        self,
        config: PlaceholderConfig,
        sites: Mapping[str, int],
        tasks: Sequence[str] = (),
        ways: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        own = tasks if config.sharing == "per_task" else ()
        count = 0 if config.adapter else config.count
        resampled = config.kind == "random" and config.random == "resampled"
        self.bank = PlaceholderBank(count, config.width, own, not config.learned, config.levels, resampled)
        self.sites = nn.ModuleDict({key_of(name): _site(config, channels) for name, channels in sites.items()})

        ways = {"": list(sites)} if ways is None else ways
        self._levels = levels_of(ways, config.levels) if config.levels > 1 else {}
        self.opened: Tensor | None
        self.register_buffer("opened", torch.tensor(config.levels) if config.opening == "staged" else None)
        self._add_order(config)
        self.dynamic = _dynamic(config, sites, ways, tasks)
        self._numbers = {task: number for number, task in enumerate(tasks)}
        self._modalities = {name: modality_of(name) for name in sites} if config.modalities else {}
        vectors = {one: nn.Parameter(torch.zeros(config.width)) for one in sorted(set(self._modalities.values()))}
        self.modalities = nn.ParameterDict(vectors)

    def begin(self, samples: int | Mapping[str, int]) -> TokenStream:
        """A fresh stream.

        Args:
            samples: B, or the number of samples of each task in the order of the batch; dynamic tokens need the latter.
        """
        task = next(iter(samples)) if isinstance(samples, Mapping) and len(samples) == 1 else ""
        rules = Rules(
            self.edit,
            self._levels,
            int(self.opened) if self.opened is not None else None,
            {name: self.modalities[modality] for name, modality in self._modalities.items()},
            self.dynamic,
        )
        waiting = self._waiting(samples) if self.dynamic is not None else None
        states = [self.bank(samples, level) for level in range(self.bank.levels)]
        return TokenStream(dict(self.sites.items()), states, task=task, rules=rules, waiting=waiting)

    def advance(self, step: int, steps: int) -> None:
        """Tell which step of training comes next. All processes.

        With ``opening: staged`` level s opens after a share s/S of the steps. Resampled tokens are drawn.

        Args:
            step: From 0.
            steps: Length of the run.
        """
        self.bank.advance(step)
        if self.opened is not None:
            self.opened.fill_(min(self.bank.levels, self.bank.levels * step // steps + 1))

    def _add_order(self, config: PlaceholderConfig) -> None:
        if config.order == "second":
            for site in self.sites.values():
                assert isinstance(site, ExchangeSite)
                site.interaction = SecondOrder(config.width)

    def _waiting(self, samples: int | Mapping[str, int]) -> Tensor:
        """int64 [B], number of each sample's task."""
        if isinstance(samples, int):
            raise ValueError("dynamic tokens need the number of samples of every task")
        numbers = [self._numbers[task] for task, count in samples.items() for _ in range(count)]
        return torch.tensor(numbers, dtype=torch.int64, device=self.bank.tokens.device)


def _site(config: PlaceholderConfig, channels: int) -> nn.Module:
    if config.adapter:
        return Adapter(channels, config.width, config.attention_width)
    if config.way == "insert":
        return Insertion(channels, config.width)
    if config.way == "output":
        return LogitShift(channels, config.width)
    return ExchangeSite(channels, config.width, config.attention_width, config.heads, config.read, config.write)


def _dynamic(
    config: PlaceholderConfig, sites: Mapping[str, int], ways: Mapping[str, Sequence[str]], tasks: Sequence[str]
) -> DynamicStart | None:
    if not config.dynamic:
        return None
    firsts = list(dict.fromkeys(way[0] for way in ways.values() if way))
    if any(site.endswith(BORDER) for site in firsts):
        raise HarnessError(
            "model.placeholders.dynamic: a border of pixels comes before all features that an offset could be made"
            " from; use mechanism: exchange with placement: hidden, or a plain transformer"
        )
    count = config.count // len(tasks) if config.sharing == "per_task" else config.count
    widths = {key_of(site): sites[site] for site in firsts}
    return DynamicStart(widths, len(tasks), config.levels * count, config.width, config.attention_width)
