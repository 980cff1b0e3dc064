"""The ``model.placeholders`` section of a submission. Light: no torch, so that a misspelt key is told at once."""

from __future__ import annotations

import inspect
import re
from typing import Any, Literal

from pydantic import Field, model_validator

from harness.documents import Section

# In every fingerprint, also at their defaults; other keys are part of it only where they are switched on.
_ALWAYS = (
    "count",
    "width",
    "attention_width",
    "heads",
    "stages",
    "mechanism",
    "placement",
    "sharing",
    "frozen",
)


class PlaceholderConfig(Section):
    """Placeholder tokens: one learned parameter that all tasks and modalities read and write.

    Attributes:
        count: K, the number of tokens; 0 gives exactly the plain network.
        width: d, the width of a token.
        attention_width: a, the width in which tokens and features attend to each other.
        heads: Attention heads of an exchange.
        stages: At how many of the backbone's last stages tokens and features are exchanged.
        mechanism: How tokens meet features. ``exchange``: both read each other at chosen stages, works with every
            network. ``prefix_shallow``: tokens are inserted once into a transformer's sequence. ``prefix_deep``: fresh
            ones at every block (Visual Prompt Tuning; Jia 2022).
        placement: Where tokens come in. ``hidden``: at the stages. ``input``: inserted at the embedding (a
            convolutional network gets a learned pixel border). ``output``: a learned vector added to the logits, on a
            linear head a second bias; it should change nothing, which makes it a control.
        sharing: Whose the tokens are. ``all``: every task uses all K tokens. ``per_task``: T tasks have K/T tokens
            each, a control that takes the sharing away.
        frozen: Keep the tokens at their random start, a control that takes the learning away. The same as ``kind:
            random``.
        kind: Where the tokens' values come from. ``learned``: from training. ``random``: from a random draw, a control.
        random: When random tokens are drawn. ``frozen``: once. ``resampled``: anew at every step of training; the
            first draw is evaluated.
        order: What tokens make of what they read. ``first``: nothing. ``second``: after every read, products of each
            token with the mean token are added; 0 at the start.
        dynamic: Start each sample from the tokens plus an offset made from the sample's features at its first site and
            from its task; 0 at the start.
        levels: S sets of K tokens, one for each depth of the network: the l-th of the L sites on a sample's way uses
            set S·l/L, rounded down.
        opening: When levels come into use. ``at_once``: all from the start. ``staged``: level s after a share s/S of
            all steps; until then its sites do nothing.
        modalities: Add a vector of the site's modality (image, text or fusion) to the tokens there; 0 at the start.
        read: Let tokens read features. Without it they are the same for every sample, a control.
        write: Let features read tokens. Without it nothing comes of the tokens, a control.
        masked: Let no feature attend to inserted tokens, a control with all of a prefix's costs. For prefixes.
        adapter: In place of tokens a bottleneck adapter at each site, with the site's number of parameters: a control
            that shows what the parameters do by themselves.
    """

    count: int = Field(default=16, ge=0, le=4096)
    width: int = Field(default=256, gt=0, le=8192)
    attention_width: int = Field(default=64, gt=0, le=8192)
    heads: int = Field(default=4, ge=1)
    stages: int = Field(default=2, ge=0, le=8)
    mechanism: Literal["exchange", "prefix_shallow", "prefix_deep"] = "exchange"
    placement: Literal["input", "hidden", "output"] = "hidden"
    sharing: Literal["all", "per_task"] = "all"
    frozen: bool = False
    kind: Literal["learned", "random"] = "learned"
    random: Literal["frozen", "resampled"] = "frozen"
    order: Literal["first", "second"] = "first"
    dynamic: bool = False
    levels: int = Field(default=1, ge=1, le=64)
    opening: Literal["at_once", "staged"] = "at_once"
    modalities: bool = False
    read: bool = True
    write: bool = True
    masked: bool = False
    adapter: bool = False

    @model_validator(mode="after")
    def _fits_together(self) -> PlaceholderConfig:
        if self.attention_width % self.heads:
            raise ValueError(f"heads: {self.heads} does not divide attention_width {self.attention_width}")
        if self.placement == "output" and self.mechanism != "exchange":
            raise ValueError(f"mechanism: {self.mechanism} inserts tokens, but placement output has no place for them")
        if self.placement == "input" and self.mechanism == "prefix_deep":
            raise ValueError("mechanism: prefix_deep enters at every block; use placement hidden or prefix_shallow")
        self._check_kind()
        self._check_way()
        if self.opening == "staged" and self.levels == 1:
            raise ValueError("opening: staged opens one level after another, but levels is 1; raise levels, e.g. to 4")
        return self

    def _check_kind(self) -> None:
        if self.random == "resampled" and self.kind != "random":
            raise ValueError(f"random: resampled needs kind: random, not {self.kind}")
        if self.random == "resampled" and self.frozen:
            raise ValueError("frozen: true keeps the tokens, but random: resampled draws them anew; leave one out")
        if self.adapter:
            for key in type(self).model_fields:
                if key not in _OF_ADAPTERS and getattr(self, key) != type(self).model_fields[key].default:
                    value = _shown(getattr(self, key))
                    raise ValueError(f"adapter: true has no tokens, which {key}: {value} speaks of; leave one out")

    def _check_way(self) -> None:
        """See to it that what is switched on has a place where it can happen."""
        way = self.way
        if way == "output":
            for key, reason in _NOT_AT_OUTPUTS.items():
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"{key}: {_shown(getattr(self, key))}: {reason}; use placement: hidden")
        if way == "insert":
            for key in ("read", "write"):
                if not getattr(self, key):
                    raise ValueError(
                        f"{key}: false: inserted tokens are read and written by the network's own attention; use"
                        " mechanism: exchange, or masked: true for a prefix that nothing reads"
                    )
            if self.order == "second":
                raise ValueError("order: second follows the reads of an exchange; use mechanism: exchange")
        if way == "exchange":
            if self.masked:
                raise ValueError("masked: true speaks of a prefix in a sequence; for an exchange use write: false")
            if not self.read and not self.write:
                raise ValueError("write: false with read: false leaves nothing of the tokens; use count: 0")
            if self.order == "second" and not self.read:
                raise ValueError("order: second follows every read, and with read: false there is none")

    @property
    def way(self) -> Literal["exchange", "insert", "output"]:
        """What happens at a site: features and tokens are exchanged, projected tokens are inserted, or logits shift.

        With ``output`` no encoder has a site.
        """
        if self.placement == "output":
            return "output"
        return "exchange" if self.mechanism == "exchange" and self.placement == "hidden" else "insert"

    @property
    def learned(self) -> bool:
        """Whether the tokens are trained."""
        return not self.frozen and self.kind == "learned"

    @property
    def trained_by_tasks(self) -> bool:
        """Whether the tasks' losses reach the tokens: there are any, they are trained, and something comes of them."""
        return self.learned and self.write and not self.masked and not self.adapter

    @property
    def differs_by_task(self) -> bool:
        """Whether samples of two tasks start from different tokens, even where they hold the same image."""
        return self.count > 0 and (self.sharing == "per_task" or self.dynamic)

    def science(self) -> dict[str, Any]:
        """What a run's result depends on, as plain JSON values, without what is switched off.

        What is off is left out, so that a key which is added later changes no fingerprint. The plain network is the
        same whatever its tokens would have been, and two names of one thing are one.
        """
        content = self.model_dump(mode="json")
        own = type(self).model_fields
        for key in own:
            if key not in _ALWAYS and (not self.count or getattr(self, key) == own[key].default):
                del content[key]
        if self.count and self.kind == "random" and self.random == "frozen":
            del content["kind"]
            content["frozen"] = True
        return content


_OF_ADAPTERS = ("adapter", "count", "width", "attention_width", "heads", "stages")
_NOT_AT_OUTPUTS = {
    "order": "second order follows the reads of an exchange, and at the logits nothing is read",
    "dynamic": "an offset is made from features, and the tokens meet the logits only",
    "levels": "each task's logits are one site, which uses level 0 only",
    "modalities": "logits belong to no modality",
    "read": "at the logits nothing is read anyway",
    "write": "nothing would be left of the tokens",
    "masked": "there is no prefix that could be masked",
}


def about(section: type[Section] = PlaceholderConfig) -> dict[str, str]:
    """One line on each key, by its name: the first sentence of what the section's docstring says of it."""
    text = inspect.cleandoc(section.__doc__ or "").partition("Attributes:\n")[2]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE)
    return {name: re.split(r"(?<=\.)\s", " ".join(line.split()), maxsplit=1)[0] for name, line in entries}


def _shown(value: Any) -> str:
    """As one writes it in YAML."""
    return str(value).lower() if isinstance(value, bool) else str(value)
