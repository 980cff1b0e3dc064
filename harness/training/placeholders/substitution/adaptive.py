"""Strategy `adaptive`."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from harness.data.batches import Batch
from harness.data.joint_images import share_images
from harness.data.loading import Place
from harness.models.network import PENALTY
from harness.training.affinity import whole_gradients
from harness.training.balancing.gradients import Jacobian
from harness.training.balancing.graph import last_shared
from harness.training.parts import look_back, split
from harness.training.placeholders.substitution.alignment import Alignment, cosine
from harness.training.placeholders.substitution.base import Setting, Strategy
from harness.training.placeholders.substitution.gain_model import GainModel
from harness.training.placeholders.substitution.held_out import WithoutHeldOut, held_out

INPUTS = 4  # cosine, CKA and the loss ratios of target and source


class Adaptive(Strategy):
    """Mostly the task whose output a small model expects to help most.

    For a target t, τ is drawn from softmax(expected gains / `temperature`), or with probability `epsilon` uniformly.
    Every `every` steps there is a look: with the sources drawn for that step, the gain of each target is

        1 - L_t(θ - η ∇ L_t^τ) / L_t(θ),

    where L_t^τ is the target's loss on the step's batch with τ's output among its features, η the learning rate, and
    L_t its loss, with nothing replaced, on training images that are never trained on. A ridge regression learns gains
    from: the cosine of the gradients of L_t^τ and L_τ in the shared placeholder tokens (without tokens that all tasks
    learn: in the last weight that all tasks share); linear CKA between t's features and the output of τ's head on them;
    and L / L(first steps) of t and of τ. Expected gains of all pairs follow from these until the next look.

    The look-ahead is that of TAG (Fifty 2021; see `harness.training.affinity`), with a step that has τ as its source.
    A look takes a gradient of every task, outputs of every pair, and two forward passes on held-out images for each
    target.

    Args:
        setting: What it may know of the run.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._held = {name: held_out(data, setting.config.held_out) for name, data in setting.data.items()}
        self._model = GainModel(INPUTS)
        self._expected = {target: dict.fromkeys(sources, 0.0) for target, sources in setting.pairs.items()}
        self._first: dict[str, float] = {}
        self._recent: dict[str, list[float]] = {}
        self._anchor: nn.Parameter | None = None
        self._looked = False

    def order(self, name: str, order: Iterable[list[Place]]) -> Iterable[list[Place]]:
        """The batches that a task is trained on: none of the images held out."""
        return WithoutHeldOut(order, self._held[name], len(self.setting.data[name]))

    def sources(self, step: int, target: str) -> Sequence[str]:
        """One of the target's sources, as its expected gain makes it likely."""
        among, config, draw = self.setting.pairs[target], self.setting.config, self.draw(step, target)
        if draw.random() < config.epsilon:
            return (among[int(draw.integers(len(among)))],)
        gains = [self._expected[target][source] / config.temperature for source in among]
        weights = [math.exp(gain - max(gains)) for gain in gains]
        return (among[int(draw.choice(len(among), p=[weight / math.fsum(weights) for weight in weights]))],)

    def look(self, step: int, model: nn.Module, batches: Mapping[str, Batch], rate: float) -> None:
        """Find out gains, where it is time to. All processes."""
        if step == 0 or step % self.setting.config.every:
            return
        setting = self.setting
        substitution, engine = setting.network.substitution, setting.engine
        accumulation = setting.training.accumulation
        assert substitution is not None
        choice = self.choice(step)
        alignments: defaultdict[tuple[str, str], Alignment] = defaultdict(Alignment)
        substitution.choice = replace(choice, watch=lambda target, source, x, y: alignments[target, source].add(x, y))
        try:
            jacobian = whole_gradients(model, engine, batches, accumulation)
        finally:
            substitution.choice = None
        anchor = self._find_anchor(model, batches)
        means = {task: math.fsum(losses) / len(losses) for task, losses in self._recent.items()}
        self._first = means | self._first
        ratios = {task: value / self._first[task] if self._first[task] else 1.0 for task, value in means.items()}
        self._recent = {}
        rows = _rows_of(jacobian, anchor)
        seen = {
            (target, source): (
                cosine(rows[target], rows[source]) if target in rows and source in rows else 0.0,
                alignments[target, source].whole(engine),
                ratios[target],
                ratios[source],
            )
            for target, sources in setting.pairs.items()
            for source in sources
        }
        held = self._held_batches(step // setting.config.every)
        for target, (source,) in choice.sources.items():
            one = {target: held[target]}
            before = look_back(model, engine, one, accumulation)[target]
            with _stepped(jacobian, jacobian.tasks.index(target), rate):
                after = look_back(model, engine, one, accumulation)[target]
            if before:
                self._model.learn(seen[target, source], 1 - after / before)
        self._expected = {
            target: {source: self._model.expect(seen[target, source]) for source in sources}
            for target, sources in setting.pairs.items()
        }
        self._looked = True

    def take(self, losses: Mapping[str, float], rate: float) -> None:
        """Take up the losses since the last look."""
        for name, loss in losses.items():
            self._recent.setdefault(name, []).append(loss)

    def points(self) -> dict[str, float]:
        """Expected gains, once there was a look."""
        return {
            f"substitution/gain/{target}|{source}": gain
            for target, gains in self._expected.items()
            for source, gain in gains.items()
            if self._looked
        }

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {
            "model": self._model.state(),
            "expected": self._expected,
            "first": self._first,
            "recent": self._recent,
            "looked": self._looked,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore `state`."""
        self._model.load_state(state["model"])
        self._expected = {target: dict(gains) for target, gains in state["expected"].items()}
        self._first = dict(state["first"])
        self._recent = {name: list(losses) for name, losses in state["recent"].items()}
        self._looked = state["looked"]

    def _find_anchor(self, model: nn.Module, batches: Mapping[str, Batch]) -> nn.Parameter | None:
        """The parameter in which gradients are compared; None where tasks share none."""
        setting = self.setting
        network, engine = setting.network, setting.engine
        if setting.shared_tokens and network.placeholders is not None:
            return network.placeholders.bank.tokens
        if self._anchor is None:
            left_out = {id(one) for one in network.substitution.parameters()} if network.substitution else set()
            if network.placeholders is not None:
                left_out |= {id(one) for one in network.placeholders.bank.parameters()}
            trained = [one for one in network.parameters() if one.requires_grad and id(one) not in left_out]
            buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
            with (
                torch.random.fork_rng(devices=[engine.device] if engine.device.type == "cuda" else []),
                engine.alone(model),
            ):
                losses = model(*split(network, engine, batches, setting.training.accumulation)[0])
                losses.pop(PENALTY, None)
                self._anchor = last_shared(list(losses.values()), trained)
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
        return self._anchor

    def _held_batches(self, number: int) -> dict[str, Batch]:
        """This process's slices of a look's batches of held-out images, which come in turn, augmented as always."""
        setting = self.setting
        rank, world = setting.engine.rank, setting.engine.world
        found = {}
        for name, places in self._held.items():
            size = setting.sizes[name]
            mine = range(size * rank // world, size * (rank + 1) // world)
            batch = setting.data[name].batch([(number, places[(number * size + one) % len(places)]) for one in mine])
            found[name] = batch.to(setting.engine.device)
        return share_images(found, setting.leaders)


def _rows_of(jacobian: Jacobian, parameter: nn.Parameter | None) -> dict[str, Tensor]:
    """Each task's gradient in one parameter that several reach, flat; nothing where they do not."""
    start = 0
    for one in jacobian.shared:
        stop = start + one.numel()
        if one is parameter:
            return {task: jacobian.rows[row, start:stop] for row, task in enumerate(jacobian.tasks)}
        start = stop
    return {}


@contextmanager
def _stepped(jacobian: Jacobian, row: int, rate: float) -> Iterator[None]:
    """A plain gradient step of size `rate` for one task in all that it reaches, for the time of a block."""
    own = [(parameter, gradient) for parameter, task, gradient in jacobian.own if task == row]
    with torch.no_grad():
        kept = [(one, one.clone()) for one in [*jacobian.shared, *(parameter for parameter, _ in own)]]
        jacobian.step(row, rate)
        for parameter, gradient in own:
            parameter.sub_(gradient, alpha=rate)
    try:
        yield
    finally:
        with torch.no_grad():
            for one, value in kept:
                one.copy_(value)
