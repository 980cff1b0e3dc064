"""What a library's model looks like from outside: its stages, the image sizes it takes, and whether it takes a prefix.

Nothing is listed by hand. The model is built without memory (torch's meta device), run on images of telling sizes, and
the shapes that leave its modules say the rest.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from harness.models.backbones.prefix import Prefix
from harness.models.config import BackboneConfig

Layout = Literal["nchw", "nhwc", "tokens"]
Kind = Literal["cnn", "hierarchical", "transformer"]

MAX_PREFIX = 64  # class and register tokens; no known model has more than 16
_ODD = (118, 182)  # rounds up and down differently at every stride from 4 on, and no side equals a usual width
_STRIDES = (1, 2, 4, 8, 16, 32, 64)


class Unsuitable(Exception):
    """A model that gives no feature maps. The message says why."""


class Library(Protocol):
    """What differs between libraries of models."""

    name: str

    def names(self) -> Collection[str]:
        """Every model that can be named, without tags."""

    def tagged(self) -> Collection[str]:
        """The names that have pretrained weights."""

    def growths(self) -> Sequence[Mapping[str, Any]]:
        """Builder arguments that make a model take images of any size, best first; the last one is empty."""

    def create(self, config: BackboneConfig, growth: Mapping[str, Any]) -> nn.Module:
        """The model of `config` with random weights, without its classifier.

        Raises:
            TypeError: It does not take `growth` or an option.
        """

    def pretrained(self, config: BackboneConfig, growth: Mapping[str, Any]) -> nn.Module:
        """The same with the library's weights; raises whatever the library raises when they cannot be had."""

    def stages(self, body: nn.Module) -> list[tuple[str, int | None]]:
        """Modules whose outputs may be feature maps, in order, with their stride where the library declares it."""

    def native_size(self, config: BackboneConfig, body: nn.Module) -> int:
        """Side of the images that the model is made for."""

    def pooled(self, body: nn.Module, images: Tensor) -> Tensor:
        """What the library's own classifier gets, float [B, F], of normalised images float [B, 3, H, W]."""

    def normalization(self, config: BackboneConfig, body: nn.Module) -> tuple[Sequence[float], Sequence[float]]:
        """Mean and standard deviation of each channel, of pixels in [0, 1]."""

    def interpolation(self, config: BackboneConfig) -> str:
        """How images were resized in the training of the weights, e.g. ``bicubic``; empty where nothing is known."""

    def adapt(self, body: nn.Module, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """A checkpoint's weights under `body`'s names, and those that are rightly dropped (the classifier's)."""


@dataclass(frozen=True)
class Stage:
    """A module whose output is a feature map.

    Attributes:
        module: Its name.
        stride: Pixels of the image to one position.
        channels: C.
        layout: ``nchw``, ``nhwc``, or ``tokens`` for [B, N, C].
        prefix: tokens: how many positions (class, registers) stand before those of the image.
    """

    module: str
    stride: int
    channels: int
    layout: Layout
    prefix: int = 0


@dataclass(frozen=True)
class Structure:
    """A model from outside.

    Attributes:
        kind: ``transformer``: blocks of one size over a sequence of patches. ``hierarchical``: stages with attention.
        stages: In the order of a forward pass.
        pooled_width: F, width of the pooled feature.
        divisor: Height and width of images must be multiples of it.
        fixed: Images must have exactly `divisor` as height and width.
        takes_prefix: Whether tokens can be inserted into the sequence of its blocks.
        growth: Builder arguments that make it so.
    """

    kind: Kind
    stages: tuple[Stage, ...]
    pooled_width: int
    divisor: int
    fixed: bool
    takes_prefix: bool
    growth: Mapping[str, Any]


def inspect(library: Library, config: BackboneConfig) -> Structure:
    """Find out a model's structure.

    Args:
        library: Where the name is looked up.
        config: Name and options; weights and freezing do not matter.

    Raises:
        Unsuitable: The model gives no feature maps.
        TypeError: The library's builder does not take the options.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        body, growth, device = _build(library, config)
        body.eval()
        modules = dict(body.named_modules())
        names = [(name, stride) for name, stride in library.stages(body) if name in modules]
        native = library.native_size(config, body)
        coarsest = max([stride for _, stride in names if stride] or [32])
        problem = "no module gives maps whose size follows the image's"
        for divisor, size in _attempts(coarsest, native):
            try:
                found = _observe(library, body, names, size, device)
            except Exception as error:  # a size that does not suit fails in the library's own many ways
                problem = str(error).strip().split("\n")[0][:160] or type(error).__name__
                continue
            if found is None:
                continue
            stages, pooled_width = found
            kind = _kind(body, stages)
            prefix = kind == "transformer" and _takes_prefix(library, body, stages, size, device)
            fixed = divisor == native and size[0] == size[1]
            return Structure(kind, tuple(stages), pooled_width, divisor, fixed, prefix, growth)
    raise Unsuitable(problem)


def _build(library: Library, config: BackboneConfig) -> tuple[nn.Module, Mapping[str, Any], str]:
    growths = library.growths()
    for growth in growths:
        for device in ("meta", "cpu"):  # a few constructors compute with values and fail without them
            try:
                with torch.device(device):
                    return library.create(config, growth), growth, device
            except TypeError as error:
                if "meta" in str(error) and device == "meta":
                    continue
                if growth is growths[-1]:
                    raise
                break
            except (RuntimeError, NotImplementedError):
                if device == "cpu":
                    raise
    raise AssertionError("the last growth is empty and always returns or raises")


def _attempts(coarsest: int, native: int) -> list[tuple[int, tuple[int, int]]]:
    """Image sizes to try: any, multiples of the coarsest stride, of 64, of the native size, the native size alone."""
    multiples = dict.fromkeys([coarsest, math.lcm(coarsest, 32), math.lcm(coarsest, 64)])
    return [
        (1, _ODD),
        *((unit, (3 * unit, 5 * unit)) for unit in multiples),
        (native, (native, 2 * native)),
        (native, (native, native)),
    ]


def _observe(
    library: Library,
    body: nn.Module,
    names: Sequence[tuple[str, int | None]],
    size: tuple[int, int],
    device: str,
) -> tuple[list[Stage], int] | None:
    """The stages and the pooled width at one image size; None if maps are cut off instead of rounded up."""
    shapes: dict[str, list[torch.Size]] = {name: [] for name, _ in names}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            shapes[name].append(output.shape if isinstance(output, Tensor) else torch.Size())

        return body.get_submodule(name).register_forward_hook(hook)

    handles = [watch(name) for name, _ in names]
    try:
        pooled = library.pooled(body, torch.zeros(2, 3, *size, device=device))
    finally:
        for handle in handles:
            handle.remove()
    stages = []
    for name, stride in names:
        if len(shapes[name]) == 1 and shapes[name][0][:1] == (2,):
            stage = _stage(name, stride, shapes[name][0], size)
            if stage is not None:
                stages.append(stage)
    if not stages or pooled.dim() != 2 or any(not _rounds_up(shapes[s.module][0], s, size) for s in stages):
        return None
    if len({(s.stride, s.channels, s.layout) for s in stages}) > 1 and all(stride is None for _, stride in names):
        # Undeclared: of all modules with one stride the last one ends the stage.
        stages = list({stage.stride: stage for stage in stages if stage.stride > 1}.values())
    return stages, int(pooled.shape[1])


def _stage(name: str, declared: int | None, shape: torch.Size, size: tuple[int, int]) -> Stage | None:
    """Read a map's shape [2, ...], or None if it is no map."""
    for stride in (declared,) if declared else _STRIDES:
        for rounded in (math.ceil, math.floor):
            grid = (rounded(size[0] / stride), rounded(size[1] / stride))
            if len(shape) == 4 and shape[2:] == grid:
                return Stage(name, stride, shape[1], "nchw")
            if len(shape) == 4 and shape[1:3] == grid:
                return Stage(name, stride, shape[3], "nhwc")
            if len(shape) == 3 and declared and 0 <= shape[1] - math.prod(grid) <= MAX_PREFIX:
                return Stage(name, stride, shape[2], "tokens", shape[1] - math.prod(grid))
    return None


def _rounds_up(shape: torch.Size, stage: Stage, size: tuple[int, int]) -> bool:
    grid = tuple(math.ceil(side / stage.stride) for side in size)
    if stage.layout == "tokens":
        return shape[1] - stage.prefix == math.prod(grid)
    return (shape[2:] if stage.layout == "nchw" else shape[1:3]) == grid


def _kind(body: nn.Module, stages: Sequence[Stage]) -> Kind:
    parts = [module for stage in stages for module in body.get_submodule(stage.module).modules()]
    attends = any(hasattr(part, heads) for part in parts for heads in ("num_heads", "n_heads", "heads"))
    if not attends:
        return "cnn"
    alike = len({(stage.stride, stage.channels) for stage in stages}) == 1
    return "transformer" if alike and stages[0].layout == "tokens" else "hierarchical"


def _takes_prefix(
    library: Library, body: nn.Module, stages: Sequence[Stage], size: tuple[int, int], device: str
) -> bool:
    """Try it: relative positions and token mixing of a fixed length fail with tokens that they do not know."""
    count = 3
    prefix = Prefix(body, [stage.module for stage in stages], stages[0].prefix, deep=False)
    tokens = torch.zeros(2, count, stages[0].channels, device=device)
    try:
        with prefix.inserting(lambda block, sequence: tokens):
            library.pooled(body, torch.zeros(2, 3, *size, device=device))
    except Exception:  # the library's own many ways again
        return False
    finally:
        prefix.remove()
    return prefix.lengths == {stages[0].prefix + count + math.prod(-(-side // stages[0].stride) for side in size)}
