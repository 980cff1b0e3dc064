"""Placeholder samples in a step: what the network is asked beside its labelled batches, in the same forward call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor, nn

from harness.data.batches import Batch, VqaBatch
from harness.data.collation import enlarge
from harness.data.transforms import derive_seed
from harness.models.network import MultiTaskNetwork
from harness.training.engine import Engine
from harness.training.placeholders.consistency import divergence, places, pseudo_labels, soft_labels
from harness.training.placeholders.samples_config import SamplesConfig
from harness.training.placeholders.views import direction, scaled, strong

PREFIX = "samples/"
KEPT = "/kept"
# Root mean square of the probe, as a share of the range of pixel values. Miyato's 1e-6 (as the norm of the whole
# change) is below the resolution of a pixel in float32: the two outputs would be equal, and the direction noise.
PROBE = 1e-3


@dataclass(frozen=True)
class Samples:
    """Unlabelled images of one step, or of a part of it.

    Every pass over them starts from the same random state, which follows from run, step and images, so that views
    differ by nothing but the images. Afterwards random streams are as they were, and so are batch-norm statistics: they
    are those of the labelled images, with and without placeholder samples.

    Attributes:
        batches: By dataset name, on the device.
        config: What is done with them.
        seed: The run's.
        step: The step's number.
        shares: What the losses are multiplied with where the batches are parts of a step's; None for whole batches.
    """

    batches: Mapping[str, Batch]
    config: SamplesConfig
    seed: int
    step: int
    shares: Mapping[str, float] | None = None

    def __call__(self, network: MultiTaskNetwork) -> dict[str, Tensor]:
        """The losses, inside the network's forward call.

        Returns:
            By ``samples/<task>`` the loss with its weight, a scalar; and by ``samples/<task>/kept`` the share of places
            that reach the threshold, where there is one.
        """
        found: dict[str, Tensor] = {}
        with self._own_randomness():
            told = self._adversarial(network) if self.config.kind == "adversarial" else self._views(network)
        for name, (loss, kept) in told.items():
            share = self.shares[name] if self.shares is not None else 1.0
            found[f"{PREFIX}{name}"] = self.config.weight * share * loss
            if kept is not None:
                found[f"{PREFIX}{name}{KEPT}"] = share * kept
        return found

    def split(self, engine: Engine, accumulation: int) -> list[Samples]:
        """The parts of this process's slice, as `harness.training.parts.split` has them. All processes.

        Losses are means over images, or questions, so that parts weigh by how many of these they have.
        """
        if engine.world == 1 and accumulation == 1:
            return [self]
        names = list(self.batches)
        parts = [
            {name: _part(self.batches[name], number, accumulation) for name in names} for number in range(accumulation)
        ]
        counts = [{name: _rows(part[name]) for name in names} for part in parts]
        sides = [side for name in names for side in self.batches[name].images.shape[-2:]]
        rows = engine.exchange([*(sum(count[name] for count in counts) for name in names), *sides])
        columns = list(zip(*rows, strict=True))
        totals = dict(zip(names, (sum(column) for column in columns), strict=False))
        largest = [int(max(column)) for column in columns[len(names) :]]
        sizes = {name: (largest[2 * place], largest[2 * place + 1]) for place, name in enumerate(names)}
        return [
            replace(
                self,
                batches={name: enlarge(batch, sizes[name]) for name, batch in part.items()},
                shares={name: engine.world * count[name] / totals[name] for name in names},
            )
            for part, count in zip(parts, counts, strict=True)
        ]

    def _views(self, network: MultiTaskNetwork) -> dict[str, tuple[Tensor, Tensor | None]]:
        """`random` and `distilled`."""
        changed = {name: strong(batch, self.seed, self.step) for name, batch in self.batches.items()}
        teacher = self._ask(network, None, teaching=True)
        student = self._ask(network, changed)
        found: dict[str, tuple[Tensor, Tensor | None]] = {}
        for name, (logits, valid) in student.items():
            pair = (teacher[name][0], logits, valid, network.exclusive(name), self.config.threshold)
            found[name] = pseudo_labels(*pair)
            if self.config.kind == "distilled":
                found[name] = soft_labels(*pair, self.config.temperature)
        return found

    def _adversarial(self, network: MultiTaskNetwork) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Virtual adversarial training (Miyato 2018, algorithm 1) with one power iteration.

        r = ε · g / rms(g), with g the gradient of KL(p(x) ‖ p(x + ξ d)) by d. Lengths are root mean squares instead of
        norms, so that one ε serves images of all sizes. g is found in float32 whatever the precision is.
        """
        range_ = 255.0
        pixels = {name: batch.images.contiguous().float() for name, batch in self.batches.items()}
        starts = {name: direction(batch, self.seed, self.step) for name, batch in self.batches.items()}
        with torch.autocast(next(iter(pixels.values())).device.type, enabled=False), torch.enable_grad():
            clean = self._ask(network, pixels, teaching=True)
            probes = {name: start.requires_grad_() for name, start in starts.items()}
            near = self._ask(network, {name: pixels[name] + PROBE * range_ * probes[name] for name in pixels})
            apart = [self._apart(network, name, clean, near).sum() for name in pixels]
            gradients = torch.autograd.grad(torch.stack(apart).sum(), list(probes.values()))
        worst = {
            name: pixels[name] + self.config.epsilon * range_ * scaled(gradient, self.batches[name])
            for name, gradient in zip(probes, gradients, strict=True)
        }
        found = self._ask(network, worst)
        return {name: (self._apart(network, name, clean, found).mean(), None) for name in worst}

    def _apart(
        self,
        network: MultiTaskNetwork,
        name: str,
        clean: Mapping[str, tuple[Tensor, Tensor]],
        changed: Mapping[str, tuple[Tensor, Tensor]],
    ) -> Tensor:
        return divergence(clean[name][0], changed[name][0], changed[name][1], network.exclusive(name))

    def _ask(
        self, network: MultiTaskNetwork, images: Mapping[str, Tensor] | None, teaching: bool = False
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Logits and valid places of every task, see `places`, for these images instead of the batches' own."""
        batches = dict(self.batches)
        if images is not None:
            batches = {name: replace(batch, images=images[name]) for name, batch in batches.items()}
        seed = derive_seed("pass", self.seed, self.step, *(batch.ids[0] for batch in batches.values()))
        for generator in _generators(next(iter(batches.values())).images.device):
            generator.manual_seed(seed)
        with _as_it_was(network), torch.set_grad_enabled(not teaching):
            outputs = network.outputs(batches)
        return {name: places(maps, batches[name]) for name, maps in outputs.items()}

    @contextmanager
    def _own_randomness(self) -> Iterator[None]:
        device = next(iter(self.batches.values())).images.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield


def pop_samples(losses: dict[str, Tensor]) -> Tensor | None:
    """Take what `Samples` told out of the losses of the tasks.

    Args:
        losses: Of one part, by name; only those of the tasks stay.

    Returns:
        The sum of the losses among it, which is added after balancing, or None for nothing.
    """
    told = {name: losses.pop(name) for name in [*losses] if name.startswith(PREFIX)}
    terms = [value for name, value in told.items() if not name.endswith(KEPT)]
    return reduce(torch.add, terms) if terms else None


@contextmanager
def _as_it_was(network: nn.Module) -> Iterator[None]:
    """What a forward pass remembers of it (batch-norm statistics, counts of draws) is forgotten.

    The pass works on copies. Writing old values back instead would spoil the backward pass, which autograd refuses
    where the statistics that a batch norm kept for it have changed.
    """
    kept = [(module, dict(module._buffers)) for module in network.modules() if module._buffers]
    copies: dict[int, Tensor] = {}  # a tensor may be there under several names
    for module, buffers in kept:
        for name, buffer in buffers.items():
            if buffer is not None:
                module._buffers[name] = copies.setdefault(id(buffer), buffer.clone())
    try:
        yield
    finally:
        for module, buffers in kept:
            module._buffers.update(buffers)


def _generators(device: torch.device) -> list[torch.Generator]:
    if device.type != "cuda":
        return [torch.default_generator]
    index = device.index if device.index is not None else torch.cuda.current_device()
    return [torch.default_generator, torch.cuda.default_generators[index]]


def _rows(batch: Batch) -> int:
    return len(batch.words) if isinstance(batch, VqaBatch) else len(batch.ids)


def _part(batch: Batch, number: int, parts: int) -> Batch:
    images = len(batch.ids)
    return batch.rows(images * number // parts, images * (number + 1) // parts)
