"""Dynamic routing: each task keeps or skips each block of one trunk (AdaShare; Sun 2020, arXiv:1911.12423 §3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from harness.data.batches import Batch
from harness.errors import HarnessError
from harness.models.backbones.base import Build, ImageBackbone
from harness.models.config import ModelConfig
from harness.models.features import Features
from harness.models.placeholders import Placeholders
from harness.models.sharing.hard import HardSharing
from harness.models.sharing.options import DynamicRoutingConfig

START = 0.9  # probability that a task keeps a block, at first (ours)


class Policy(nn.Module):
    """Which of L blocks each of T tasks keeps, with the probabilities α = sigmoid(logits).

    In training a decision is drawn: hard = [z + noise > 0] with logistic noise, the difference of two Gumbel variables.
    Its gradient is that of sigmoid((z + noise) / τ) (straight-through Gumbel-softmax; Jang 2017). In evaluation a block
    is kept where α > 1/2.

    Draws follow from a seed and a count, which are saved with the weights, and not from a global stream: they are the
    same in all processes of a run, and a resumed run goes on with those that would have come.

    Blocks that a curriculum has not opened are kept by all tasks; nothing is learned about them, and they are in no
    penalty.

    Args:
        tasks: Their names.
        blocks: L.
        temperature: τ.

    Attributes:
        closed: How many blocks, from the first on, are not open.
    """

    def __init__(self, tasks: Sequence[str], blocks: int, temperature: float) -> None:
        super().__init__()
        self.closed = 0
        self.logits = nn.ParameterDict(
            {task: nn.Parameter(torch.full((blocks,), math.log(START / (1 - START)))) for task in tasks}
        )
        self._temperature = temperature
        self.drawn: Tensor
        self.register_buffer("drawn", torch.cat([torch.randint(2**31, (1,)), torch.zeros(1, dtype=torch.int64)]))
        self._order = {task: number for number, task in enumerate(sorted(tasks))}

    def advance(self) -> None:
        """Go on to the next draw; once for each step of training."""
        self.drawn[1] += 1

    def forward(self, task: str) -> Tensor:
        """Decide for a task: float [L] of ones and zeros, in training with a gradient to the logits."""
        logits = self.logits[task]
        if not self.training:
            return (logits > 0).to(logits.dtype)
        noisy = logits + self._noise(task).to(logits)
        soft = (noisy / self._temperature).sigmoid()
        drawn = (noisy > 0).to(logits.dtype) + (soft - soft.detach())  # exactly 0 or 1
        return torch.cat([torch.ones_like(drawn[: self.closed]), drawn[self.closed :]]) if self.closed else drawn

    def penalty(self, tasks: Collection[str], sparsity: float, sharing: float) -> Tensor:
        """λ_sp Σ_l Σ_t log α_lt + λ_sh Σ_{s<t} Σ_l (L - l)/L |α_ls - α_lt| (eq. 4 and 5), a scalar.

        The second term makes tasks choose alike, in low blocks (l from 1) more than in high ones.

        Args:
            tasks: Those of the step: of one that rests, no loss would hold against the penalty.
            sparsity: λ_sp.
            sharing: λ_sh.
        """
        present = [logits for task, logits in self.logits.items() if task in tasks]
        if not present:
            return self.drawn.new_zeros((), dtype=torch.float32)
        logits = torch.stack(present)
        chances = logits.sigmoid()
        blocks = logits.shape[1]
        weights = 1 - torch.arange(1, blocks + 1, device=logits.device) / blocks
        if self.closed:
            logits, chances, weights = logits[:, self.closed :], chances[:, self.closed :], weights[self.closed :]
        apart = [(weights * (one - other).abs()).sum() for one, other in combinations(chances, 2)]
        return sparsity * nn.functional.logsigmoid(logits).sum() + sharing * sum(apart, logits.new_zeros(()))

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _noise(self, task: str) -> Tensor:
        if self.drawn.is_meta:
            return torch.zeros(len(self.logits[task]), device="meta")
        seed, count = self.drawn.tolist()
        generator = torch.Generator().manual_seed((seed * 1_000_003 + count) * 1_009 + self._order[task])
        uniform = torch.rand(len(self.logits[task]), generator=generator, dtype=torch.float64)
        return uniform.clamp(1e-12, 1 - 1e-12).logit()


class DynamicRoutingSharing(HardSharing):
    """One trunk, of which each task keeps or skips every block that changes no shape (AdaShare; Sun 2020).

    A skipped block passes its input on: x + g (f(x) - x). Blocks are computed either way, so a skipped one saves no
    time. Tasks go through the trunk one at a time, and each has batch-norm statistics of its own, because features are
    other ones on each route. Left out: the falling temperature, and training anew with the policy that was found.

    Args:
        config: The model section.
        tasks: Names of the tasks that need images.
        pooled_only: Those of them whose heads read the pooled feature only.
        build: Builds the backbone's model, see `ImageBackbone`; None: the library does.

    Raises:
        HarnessError: The backbone has no block that could be skipped, or is frozen wholly.
    """

    def __init__(
        self, config: ModelConfig, tasks: Sequence[str], pooled_only: Collection[str], build: Build | None = None
    ) -> None:
        options = config.sharing
        assert isinstance(options, DynamicRoutingConfig)
        if config.backbone.frozen == "all":
            raise HarnessError(
                "model.backbone.frozen: with sharing dynamic_routing a backbone's features depend on each task's"
                " route, so it cannot be frozen wholly; freeze some stages, or none"
            )
        own = config.backbone.model_copy(update={"batch_norm": "per_task"})
        super().__init__(config.model_copy(update={"backbone": own}), tasks, pooled_only, build)
        names = blocks_of(self.trunk.backbone)
        if not names:
            raise HarnessError(
                f"model.backbone.name: {config.backbone.name} has no block whose output has its input's shape, which"
                " sharing dynamic_routing could skip; take another backbone"
            )
        self.policy = Policy(tasks, len(names), options.temperature)
        self._coefficients = (options.sparsity, options.sharing)
        self._curriculum = options.curriculum
        self._gates: Tensor | None = None
        for number, name in enumerate(names):
            # Ahead of the hooks that hand features out, so that these see what a task keeps.
            self.trunk.backbone.body.get_submodule(name).register_forward_hook(self._skip(number), prepend=True)

    def parts(self) -> dict[str, nn.Module]:
        """What the tasks share, and their policies, in parts that share no parameter."""
        return super().parts() | {"policy": self.policy}

    def reach(self, share: float) -> None:
        """Open the blocks whose turn has come: the last l of L in the l-th of L equal parts of the curriculum.

        In the paper a part is an epoch, and decisions about the other blocks are not updated (Sun 2020, section 3.3).

        Args:
            share: Of the training that is done, from 0 on.
        """
        blocks = len(next(iter(self.policy.logits.values())))
        opened = math.floor(share / self._curriculum * blocks + 1e-9) + 1 if self._curriculum else blocks
        self.policy.closed = max(0, blocks - opened)

    def watch_gates(self, on: bool) -> None:
        """Nothing has to be watched: see `gate_loads`."""

    def gate_loads(self) -> dict[str, tuple[float, int]]:
        """The probability that a task keeps a block, by ``<task>/block <l>/kept``, as if of one image."""
        return {
            f"{task}/block {number}/kept": (chance, 1)
            for task, logits in self.policy.logits.items()
            for number, chance in enumerate(logits.detach().double().sigmoid().tolist(), start=1)
        }

    def penalty(self, tasks: Collection[str]) -> Tensor:
        """See `Policy.penalty`."""
        return self.policy.penalty(tasks, *self._coefficients)

    def forward(self, batches: Mapping[str, Batch], placeholders: Placeholders | None) -> dict[str, Features]:
        """Encode every task's images.

        Args:
            batches: By task.
            placeholders: The shared tokens, or None.

        Returns:
            Features by task.
        """
        if self.training:
            self.policy.advance()
        features: dict[str, Features] = {}
        for task, batch in batches.items():
            self._gates = self.policy(task)
            try:
                features |= super().forward({task: batch}, placeholders)
            finally:
                self._gates = None
        return features

    def _skip(self, number: int) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            if self._gates is None:
                return output
            gate = self._gates[number].to(output.dtype)
            return gate * output + (1 - gate) * inputs[0]  # of x + g (f(x) - x) the form that gives exactly f(x) or x

        return hook


def blocks_of(backbone: ImageBackbone) -> list[str]:
    """Names of the blocks that keep their input's shape, in the order in which they run.

    A block is an item of a sequence of modules that holds at least two layers, and no whole stage of several blocks.
    The model is run once to see shapes.

    Args:
        backbone: Stays as it is.
    """
    stages = {stage.module for stage in backbone.structure.stages} if backbone.pyramid is None else set()
    kept: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            came = inputs[0] if inputs else None
            if isinstance(came, Tensor) and isinstance(output, Tensor) and came.shape == output.shape:
                kept.append(name)

        return hook

    handles = [
        module.register_forward_hook(watch(name), prepend=True)
        for name, module in backbone.body.named_modules()
        if name not in stages and _is_item(backbone.body, name) and _layers(module) > 1
    ]
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    side = backbone.structure.divisor if backbone.structure.fixed else 64
    try:
        with torch.no_grad():
            backbone(torch.zeros(1, 3, side, side, dtype=torch.uint8, device=backbone.mean.device))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode
    return [name for name in dict.fromkeys(kept) if not any(name.startswith(f"{outer}.") for outer in kept)]


def _is_item(body: nn.Module, name: str) -> bool:
    if not name:
        return False
    parent = body.get_submodule(name.rpartition(".")[0])
    return isinstance(parent, (nn.Sequential, nn.ModuleList))


def _layers(module: nn.Module) -> int:
    kinds = (nn.Linear, nn.Conv2d, nn.MultiheadAttention)
    return 0 if type(module) in (nn.Sequential, nn.ModuleList) else sum(isinstance(m, kinds) for m in module.modules())
