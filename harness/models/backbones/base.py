"""One image backbone for every library: maps by stride, tokens, pooled feature, and the sites of placeholder tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import HarnessError, suggestion
from harness.models.backbones.border import WIDTH, add_border
from harness.models.backbones.freezing import depths, freeze
from harness.models.backbones.prefix import Prefix
from harness.models.backbones.pyramid import STRIDES, SimplePyramid
from harness.models.backbones.structure import Library, Stage, Structure, Unsuitable, inspect
from harness.models.backbones.weights import load_weights, read_weights
from harness.models.config import BackboneConfig, PlaceholderConfig
from harness.models.feature_memory import POOLED, FeatureMemory, Outputs, in_chunks, restored
from harness.models.feature_stores import FeatureStores
from harness.models.features import padding_mask
from harness.models.placeholders import TokenStream
from harness.models.weight_files import find_weights

Build = Callable[[Mapping[str, Any]], nn.Module]


@dataclass
class BackboneFeatures:
    """What a backbone makes of a batch of images.

    Attributes:
        maps: float [B', C, ceil(H/stride), ceil(W/stride)] by stride, of the first B' images, which are all unless
            fewer were asked for.
        tokens: float [B', N, C], of the same images the positions of the last stage (of a plain transformer: the
            patches), row by row; None where B' is 0.
        pooled: float [B, F], pooled and normed as the library's own classifier would get it.
    """

    maps: dict[int, Tensor]
    tokens: Tensor | None
    pooled: Tensor


@dataclass
class _Pass:
    """One forward pass, as the hooks see it."""

    stream: TokenStream | None
    contents: Tensor | None
    size: tuple[int, int]
    maps: dict[str, Tensor] = field(default_factory=dict)


class ImageBackbone(nn.Module):
    """A library's model without its classifier.

    Maps are read, and tokens exchanged, by forward hooks on the modules whose outputs the stages are: a hook's return
    value replaces the output for everything downstream, so one mechanism serves every architecture. A network with one
    stride only (a plain transformer) gets a simple feature pyramid.

    Images may have any size. Where a model asks for multiples of something, zeros are added on the right and at the
    bottom, placeholder tokens do not read them, and maps are cut back.

    Args:
        config: Which model.
        strides: Feature strides that are needed.
        placeholders: How placeholder tokens meet the features.
        build: Builds the model, given the arguments that make it take images of any size, in place of the library:
            where it is part of a larger one.

    Raises:
        HarnessError: The library does not know the name or has no weights for it, the weights do not fit, the model has
            no such strides, or it cannot take tokens in this way.
    """

    library: ClassVar[Library]

    def __init__(
        self,
        config: BackboneConfig,
        strides: Sequence[int],
        placeholders: PlaceholderConfig,
        build: Build | None = None,
    ) -> None:
        super().__init__()
        self.name = config.name
        self.options = dict(config.options)
        self.structure = _structure(self.library, config)
        self.body = _build(self.library, config, self.structure) if build is None else build(self.structure.growth)
        mean, std = self.library.normalization(config, self.body)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)
        self._resting = freeze(self.body, config.frozen, [stage.module for stage in self.structure.stages])
        for module in self._resting:
            module.eval()
        self._frozen = config.frozen == "all"
        self._memory: FeatureMemory | None = None
        self.stores = FeatureStores()

        stages = self.structure.stages
        self.pooled_width = self.structure.pooled_width
        self.pyramid: SimplePyramid | None = None
        if len({stage.stride for stage in stages}) == 1:
            _check_strides(config.name, strides, STRIDES)
            self.pyramid = SimplePyramid(stages[-1].stride, stages[-1].channels, strides)
            self.channels = self.pyramid.channels
            self._sources = {}
        else:
            # Of several stages with the same stride the last one is the richest.
            last = {stage.stride: stage for stage in stages}
            _check_strides(config.name, strides, last)
            self._sources = {stride: last[stride] for stride in strides}
            self.channels = {stride: stage.channels for stride, stage in self._sources.items()}

        self.sites: dict[str, int] = {}
        self.prefix: Prefix | None = None
        self._pass: _Pass | None = None
        exchanging = self._place(placeholders) if placeholders.count else []
        for stage in dict.fromkeys([*exchanging, *self._sources.values(), stages[-1]]):
            self.body.get_submodule(stage.module).register_forward_hook(self._hook(stage, stage in exchanging))

    def forward(
        self,
        images: Tensor,
        stream: TokenStream | None = None,
        contents: Tensor | None = None,
        mapped: int | None = None,
        remembered: Tensor | None = None,
    ) -> BackboneFeatures:
        """Encode images.

        Args:
            images: uint8 [B, 3, H, W], RGB.
            stream: Placeholder tokens of these images, or None.
            contents: int64 [B, 2], sizes of the images without padding, or None. Padding becomes 0 after
                normalisation, as torchvision's detectors have it, and placeholder tokens do not read it.
            mapped: For how many of the images, from the first on, maps are needed; None for all of them.
            remembered: int64 [B], where the features of the images lie in `stores`; of `images` the shape counts then.

        Raises:
            HarnessError: The model is made for smaller images.
        """
        size = (images.shape[-2], images.shape[-1])
        mapped = len(images) if mapped is None else mapped
        if remembered is None:
            found = self._encode(images, stream, contents, mapped)
        else:
            found = restored(self.stores.outputs(remembered, mapped))
        if not mapped:
            return BackboneFeatures({}, None, found[POOLED])
        last = self.structure.stages[-1]
        maps = {stride: found[stage.module] for stride, stage in self._sources.items()}
        if self.pyramid is not None:
            maps = self.pyramid(found[last.module], size)
        return BackboneFeatures(
            {stride: _cut(level, size, stride) for stride, level in maps.items()},
            _cut(found[last.module], size, last.stride).flatten(2).transpose(1, 2),
            found[POOLED],
        )

    @property
    def rests(self) -> bool:
        """Whether a body's outputs depend on nothing but pixels: it is frozen, and no token comes into it."""
        return self._frozen and not self.sites

    @property
    def told_inside(self) -> bool:
        """Whether blocks read, while they run, what a forward pass says of the tokens in their sequence."""
        return self.prefix is not None and self.prefix.tells

    def remember(self, limit: int) -> None:
        """Take features of a body that rests from a memory of `limit` bytes from now on, in training and evaluation."""
        self._memory = FeatureMemory(self.body, limit) if self.rests else None

    def outputs(self, images: Tensor, mapped: bool) -> Outputs:
        """What a store keeps of images, bit for bit what the memory would give.

        Args:
            images: uint8 [B, 3, H, W], without padding.
            mapped: Whether maps are wanted beside the pooled feature.
        """
        fitted, contents = self._fitted(images, None, None)
        full = (fitted.shape[-2], fitted.shape[-1])
        found = in_chunks(fitted, lambda chunk: self._run(chunk, _Pass(None, contents, full)))
        return found if mapped else {POOLED: found[POOLED]}

    def _encode(self, images: Tensor, stream: TokenStream | None, contents: Tensor | None, mapped: int) -> Outputs:
        """The pooled feature of all images and the maps of the first ones, by module."""
        fitted, contents = self._fitted(images, stream, contents)
        full = (fitted.shape[-2], fitted.shape[-1])

        def compute(inputs: Tensor) -> Outputs:
            return self._run(inputs, _Pass(stream, contents, full))

        if self._memory is not None:
            return self._memory.recall(fitted, compute, mapped)
        found = compute(fitted)
        return {name: value if name == POOLED else value[:mapped] for name, value in found.items()}

    def _run(self, inputs: Tensor, now: _Pass) -> Outputs:
        with self._passing(now), self._inserting(now):
            pooled = self.library.pooled(self.body, inputs)
        return now.maps | {POOLED: pooled}

    def _fitted(
        self, images: Tensor, stream: TokenStream | None, contents: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Normalised images of a size that the model takes, and the sizes of what is no padding in them."""
        # Batches come in either memory layout. With channels last, arithmetic by channel takes five times as long.
        normalized = (images.contiguous().to(self.mean.dtype) / 255 - self.mean) / self.std
        size = (images.shape[-2], images.shape[-1])
        if contents is not None:
            normalized = normalized.masked_fill(padding_mask(contents, size, size)[:, None], 0.0)
        if stream is not None and _border_site() in self.sites:
            normalized = add_border(normalized, stream.prefix(_border_site()))
        fitted = self._fit(normalized)
        if contents is None and fitted.shape != images.shape:
            contents = torch.tensor(size, device=images.device).expand(len(images), 2)
        return fitted, contents

    def train(self, mode: bool = True) -> ImageBackbone:
        """Frozen parts stay in evaluation mode: their statistics do not move and nothing in them is dropped."""
        super().train(mode)
        for module in self._resting:
            module.eval()
        return self

    def padding(self, positions: int) -> Tensor | None:
        """Within a pass: which positions of a sequence are padding, bool [B, positions]; None where none can be."""
        now, first = self._pass, self.structure.stages[0]
        if now is None or now.contents is None:
            return None
        grid = math.ceil(now.size[0] / first.stride), math.ceil(now.size[1] / first.stride)
        return _padding(first, now, grid, positions)

    def layers(self) -> tuple[dict[str, int], int]:
        """Depth of each of the body's weights by name (see `freezing.depths`), and the greatest depth."""
        stages = [stage.module for stage in self.structure.stages]
        return depths(self.body, stages), len(stages) + 1

    def _place(self, config: PlaceholderConfig) -> list[Stage]:
        """Set the sites up; returns the stages at which features and tokens are exchanged."""
        stages = self.structure.stages
        if config.way == "output":
            return []
        if config.way == "exchange":
            chosen = list(stages[len(stages) - config.stages :]) if config.stages else []
            if self.pyramid is not None and config.stages:
                count = min(config.stages, len(stages))
                chosen = [stages[(index + 1) * len(stages) // count - 1] for index in range(count)]
            self.sites = {f"backbone.{stage.module}": stage.channels for stage in chosen}
            return chosen
        deep = config.mechanism == "prefix_deep"
        if self.structure.takes_prefix:
            blocks = [stage.module for stage in stages]
            self.prefix = Prefix(self.body, blocks, stages[0].prefix, deep, config.masked)
            if config.masked:
                self._check_mask(stages[0])
            self.sites = {f"backbone.{block}": stages[0].channels for block in (blocks if deep else blocks[:1])}
        elif config.masked:
            raise HarnessError(
                f"model.placeholders.masked: {self.name} has no sequence whose attention could be masked; use"
                " mechanism: exchange with write: false, or a plain transformer (harness ls backbones: prefix yes)"
            )
        elif config.mechanism == "exchange":
            self.sites = {_border_site(): WIDTH}
        else:
            raise HarnessError(
                f"model.placeholders.mechanism: {self.name} has no sequence that {config.mechanism} could extend;"
                " use mechanism: exchange, or a plain transformer (harness ls backbones: prefix yes)"
            )
        return []

    def _hook(self, stage: Stage, exchanging: bool) -> Callable[..., Tensor | None]:
        site = f"backbone.{stage.module}"

        def hook(module: nn.Module, inputs: object, output: Tensor) -> Tensor | None:
            now = self._pass
            if now is None:
                return None
            grid = _grid(stage, output, now.size)
            if exchanging and now.stream is not None:
                features = _sequence(stage, output)
                padding = _padding(stage, now, grid, features.shape[1])
                output = _restore(stage, now.stream.exchange(site, features, padding, grid), output)
            patches = _sequence(stage, output)[:, stage.prefix :]
            now.maps[stage.module] = patches.transpose(1, 2).unflatten(2, grid)
            return output

        return hook

    @contextmanager
    def _passing(self, now: _Pass) -> Iterator[_Pass]:
        self._pass = now
        try:
            yield now
        finally:
            self._pass = None

    def _inserting(self, now: _Pass) -> AbstractContextManager[None]:
        stream, first = now.stream, self.structure.stages[0]
        if self.prefix is None or stream is None:
            return nullcontext()

        def tokens(block: str, sequence: Tensor) -> Tensor:
            padding = _padding(first, now, _grid(first, sequence, now.size), sequence.shape[1])
            return stream.prefix(f"backbone.{block}", sequence, padding)

        return self.prefix.inserting(tokens)

    @torch.no_grad()
    def _check_mask(self, first: Stage) -> None:
        """See to it that nothing of a masked prefix reaches the features, by trying two that norms tell apart.

        Raises:
            HarnessError: It does, so the model's attention takes no mask.
        """
        assert self.prefix is not None
        side = self.structure.divisor if self.structure.fixed else math.lcm(self.structure.divisor, first.stride)
        training = self.body.training
        self.body.eval()
        found = []
        for sign in (1, -1):
            token = sign * torch.linspace(-1, 2, first.channels)
            with self.prefix.inserting(lambda block, sequence, token=token: token[None, None]):  # type: ignore[misc]
                found.append(self.library.pooled(self.body, torch.zeros(1, 3, side, side)))
        self.body.train(training)
        if not self.prefix.maskable or not torch.equal(*found):
            raise HarnessError(
                f"model.placeholders.masked: the attention of {self.name} takes no mask; take another backbone, or"
                " mechanism: exchange with write: false"
            )

    def _fit(self, images: Tensor) -> Tensor:
        """Pad to a size that the model takes."""
        unit = self.structure.divisor
        height, width = images.shape[-2:]
        if self.structure.fixed and max(height, width) > unit:
            raise HarnessError(
                f"model.backbone.name: {self.name} takes images of {unit} x {unit} at most, not {height} x {width};"
                " give it model.backbone.options.img_size if it has one, or take another backbone"
            )
        missing = (-height % unit, -width % unit)
        return F.pad(images, (0, missing[1], 0, missing[0])) if any(missing) else images


def _border_site() -> str:
    return "backbone.border"


def _structure(library: Library, config: BackboneConfig) -> Structure:
    base = config.name.split(".")[0]
    known = library.names()
    if base not in known and not (config.weights or "").startswith("local-dir:"):
        listing = f"harness ls backbones --library {library.name}"
        raise HarnessError(
            f"model.backbone.name: {config.name!r} is not a model of {library.name}{suggestion(base, known, listing)}"
        )
    try:
        return inspect(library, config)
    except Unsuitable as problem:
        raise HarnessError(
            f"model.backbone.name: {config.name} gives no feature maps ({problem}); take another backbone"
        ) from None
    except TypeError as error:
        raise HarnessError(
            f"model.backbone.options: {library.name} cannot build {config.name!r} with {dict(config.options)}"
            f" ({_first_line(error)}); the names must be arguments of its builder"
        ) from None


def _build(library: Library, config: BackboneConfig, structure: Structure) -> nn.Module:
    if not config.pretrained:
        body = library.create(config, structure.growth)
        if config.weights is not None:
            file = find_weights(config.weights).file
            state, _ = library.adapt(body, read_weights(file))
            load_weights(body, state, str(file), config.allow_mismatch)
        return body
    if config.name.split(".")[0] not in library.tagged():
        raise HarnessError(
            f"model.backbone.pretrained: {library.name} has no weights for {config.name!r}; set pretrained: false, or"
            " give a file of weights"
        )
    try:
        return library.pretrained(config, structure.growth)
    except HarnessError:
        raise
    except Exception as error:
        # Every hub client has its own family of network errors; all of them mean that the weights did not come.
        raise HarnessError(
            f"model.backbone.pretrained: the weights of {config.name!r} could not be downloaded"
            f" ({_first_line(error)}); download them once where there is a network, or set pretrained: false"
        ) from None


def _check_strides(name: str, wanted: Sequence[int], there: Sequence[int] | dict[int, Stage]) -> None:
    for stride in wanted:
        if stride not in there:
            raise HarnessError(f"model.neck.strides: {name} has no features at stride {stride}; it has {sorted(there)}")


def _grid(stage: Stage, output: Tensor, size: tuple[int, int]) -> tuple[int, int]:
    if stage.layout == "tokens":
        return math.ceil(size[0] / stage.stride), math.ceil(size[1] / stage.stride)
    height, width = output.shape[2:] if stage.layout == "nchw" else output.shape[1:3]
    return height, width


def _sequence(stage: Stage, output: Tensor) -> Tensor:
    """[B, N, C] of a stage's output, own prefix tokens first."""
    if stage.layout == "nchw":
        return output.flatten(2).transpose(1, 2)
    return output.flatten(1, 2) if stage.layout == "nhwc" else output


def _restore(stage: Stage, sequence: Tensor, like: Tensor) -> Tensor:
    """The inverse of `_sequence`."""
    return sequence.transpose(1, 2).reshape(like.shape) if stage.layout == "nchw" else sequence.reshape(like.shape)


def _padding(stage: Stage, now: _Pass, grid: tuple[int, int], positions: int) -> Tensor | None:
    """Which positions are padding, bool [B, positions]; class tokens and the like, which stand in front, are none."""
    if now.contents is None:
        return None
    covered = (grid[0] * stage.stride, grid[1] * stage.stride)  # more than the image where a map rounds up
    mask = padding_mask(now.contents, covered, grid).flatten(1)
    return F.pad(mask, (positions - mask.shape[1], 0), value=False)


def _cut(level: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    return level[..., : math.ceil(size[0] / stride), : math.ceil(size[1] / stride)]


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
