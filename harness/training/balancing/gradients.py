"""The tasks' gradients of one step: summed over its parts, averaged over its processes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

from harness.training.engine import Engine


@dataclass
class Jacobian:
    """The gradients of T tasks, of the whole step. The same in every process.

    Attributes:
        tasks: In alphabetical order, so that nothing depends on the order in which a submission names them.
        shared: The parameters that two tasks or more reach, those of the same tasks side by side.
        rows: float [T, N], each task's gradient in all of `shared`; 0 in what it does not reach.
        blocks: For each set of tasks (by their rows) where in 0..N the parameters that just they reach begin and end.
        own: The parameters that one task reaches, with its row and gradient.
    """

    tasks: tuple[str, ...]
    shared: list[nn.Parameter]
    rows: Tensor
    blocks: list[tuple[tuple[int, ...], int, int]]
    own: list[tuple[nn.Parameter, int, Tensor]]

    @property
    def sharing(self) -> list[int]:
        """The tasks, by their rows, that reach any of `shared`."""
        return sorted({row for members, _, _ in self.blocks for row in members})

    def cosines(self) -> dict[str, float]:
        """Cosine of the gradients of every two tasks over the parameters that both reach, by ``<a>|<b>``."""
        count = len(self.tasks)
        products = torch.zeros(count, count, count, dtype=torch.float64)  # [a, b, c]: <g_a, g_c> over what a, b reach
        for members, start, stop in self.blocks:
            block = self.rows[:, start:stop]
            gramian = (block @ block.T).double().cpu()
            for a in members:
                for b in members:
                    products[a, b] += gramian[a]
        found = {}
        for a in range(count):
            for b in range(a + 1, count):
                norms = math.sqrt(float(products[a, b, a]) * float(products[b, a, b]))
                if norms > 0:
                    found[f"{self.tasks[a]}|{self.tasks[b]}"] = float(products[a, b, b]) / norms
        return found

    def norms(self, parameter: nn.Parameter) -> dict[str, float]:
        """Norm of each task's gradient in one of the parameters that any of them reaches."""
        start = 0
        for one in self.shared:
            stop = start + one.numel()
            if one is parameter:
                return dict(zip(self.tasks, self.rows[:, start:stop].norm(dim=1).tolist(), strict=True))
            start = stop
        return {self.tasks[row]: float(gradient.norm()) for one, row, gradient in self.own if one is parameter}

    @torch.no_grad()
    def step(self, row: int, rate: float) -> None:
        """A plain gradient step for one task in the parameters that it shares with others, of size `rate`."""
        start = 0
        for parameter in self.shared:
            stop = start + parameter.numel()
            parameter.sub_(_shaped(self.rows[row, start:stop], parameter), alpha=rate)
            start = stop

    def install(self, vector: Tensor, weights: Sequence[float], scale: float) -> None:
        """Make it the gradient of the parameters.

        Args:
            vector: float [N], the gradient in `shared`.
            weights: Each task's weight in the parameters that it alone reaches.
            scale: What everything is multiplied with.
        """
        start = 0
        vector = vector * scale if scale != 1 else vector
        for parameter in self.shared:
            stop = start + parameter.numel()
            parameter.grad = _shaped(vector[start:stop], parameter)
            start = stop
        for parameter, row, gradient in self.own:
            factor = weights[row] * scale
            parameter.grad = gradient * factor if factor != 1 else gradient


class TaskGradients:
    """Collects the gradients of each task by itself.

    Which task reaches which parameter is found by asking: a parameter that a loss does not depend on has no gradient.

    Args:
        parameters: In which.
        tasks: Of the step.
        scale: What losses are multiplied with before they are differentiated, so that half precision does not lose
            small gradients; gradients are divided by it.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], tasks: Sequence[str], scale: float = 1.0) -> None:
        self._parameters = list(parameters)
        self._found: dict[str, list[Tensor | None]] = {task: [None] * len(self._parameters) for task in sorted(tasks)}
        self._scale = scale

    def add(self, losses: Mapping[str, Tensor], keep: bool) -> None:
        """Take up one part of the step.

        Args:
            losses: Its scalar losses by task.
            keep: Whether a backward pass through the same graph follows.
        """
        losses = {task: loss for task, loss in losses.items() if loss.requires_grad}
        for number, (task, loss) in enumerate(losses.items(), start=1):
            scaled = loss * self._scale if self._scale != 1 else loss
            kept = keep or number < len(losses)
            gradients = torch.autograd.grad(scaled, self._parameters, retain_graph=kept, allow_unused=True)
            own = self._found[task]
            for place, gradient in enumerate(gradients):
                if gradient is not None:
                    before = own[place]
                    own[place] = gradient if before is None else before + gradient

    def keep(self, tasks: Collection[str]) -> None:
        """Forget the gradients of all other tasks."""
        self._found = {task: found for task, found in self._found.items() if task in tasks}

    def whole(self, engine: Engine) -> Jacobian:
        """The gradients of all parts and processes. All processes, once."""
        tasks = tuple(self._found)
        masks = self._masks(engine)
        order = sorted((place for place, mask in enumerate(masks) if _several(mask)), key=lambda place: masks[place])
        alone = [place for place, mask in enumerate(masks) if mask and not _several(mask)]
        shared = [self._parameters[place] for place in order]
        like = self._parameters[0] if self._parameters else torch.empty(0)  # processes exchange what lies on one device
        rows = torch.stack([self._flat(task, order) for task in tasks]) if order else like.new_zeros(len(tasks), 0)
        owners = {place: masks[place].bit_length() - 1 for place in alone}
        lone = [self._vector(tasks[owners[place]], place) for place in alone]
        if engine.world > 1:
            together = torch.cat([rows.flatten(), *lone]) if order or lone else rows.flatten()
            engine.average(together)
            rows = together[: rows.numel()].view_as(rows)
            lone = list(together[rows.numel() :].split([len(one) for one in lone]))
        if self._scale != 1:
            rows, lone = rows / self._scale, [one / self._scale for one in lone]
        self._found = {}
        blocks, start = [], 0
        for mask, places in groupby(order, key=lambda place: masks[place]):
            stop = start + sum(self._parameters[place].numel() for place in places)
            blocks.append((tuple(row for row in range(len(tasks)) if mask >> row & 1), start, stop))
            start = stop
        own = [
            (self._parameters[place], owners[place], _shaped(one, self._parameters[place]))
            for place, one in zip(alone, lone, strict=True)
        ]
        return Jacobian(tasks, shared, rows, blocks, own)

    def _masks(self, engine: Engine) -> list[int]:
        """For each parameter which tasks reach it in any process, as bits."""
        own = [
            sum(1 << row for row, found in enumerate(self._found.values()) if found[place] is not None)
            for place in range(len(self._parameters))
        ]
        if engine.world == 1:
            return own
        masks = [0] * len(own)
        for row in engine.exchange([float(mask) for mask in own]):  # exact up to 53 tasks
            masks = [mask | int(other) for mask, other in zip(masks, row, strict=True)]
        return masks

    def _flat(self, task: str, places: Sequence[int]) -> Tensor:
        flat = torch.cat([self._vector(task, place) for place in places])
        for place in places:
            self._found[task][place] = None  # gradients of all tasks need not be there twice
        return flat

    def _vector(self, task: str, place: int) -> Tensor:
        gradient, parameter = self._found[task][place], self._parameters[place]
        if gradient is None:
            return torch.zeros(parameter.numel(), dtype=parameter.dtype, device=parameter.device)
        return gradient.permute(_memory_order(parameter)).reshape(-1)


def _several(mask: int) -> bool:
    return mask & (mask - 1) != 0


def _memory_order(parameter: Tensor) -> list[int]:
    """A tensor's dimensions as they lie in memory: those of channels-last kernels are flattened without a copy."""
    strides = parameter.stride()
    return sorted(range(parameter.dim()), key=lambda dim: (-strides[dim], dim))


def _shaped(vector: Tensor, parameter: Tensor) -> Tensor:
    order = _memory_order(parameter)
    inverse = [order.index(dim) for dim in range(parameter.dim())]
    return vector.view([parameter.shape[dim] for dim in order]).permute(inverse)
