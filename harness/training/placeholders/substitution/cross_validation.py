"""Strategy `cross_validation`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from harness.data.batches import Batch
from harness.data.selecting import select
from harness.data.transforms import derive_seed
from harness.errors import HarnessError
from harness.models.features import Features
from harness.models.outputs import chosen
from harness.models.substitution import Choice
from harness.training.optimization import build_optimizer
from harness.training.placeholders.substitution.base import Setting, Strategy
from harness.training.placeholders.substitution.folds import Folds

Key = tuple[str, int]


class CrossValidation(Strategy):
    """A task for each fold of the images, and a head of it that was not trained on that fold.

    Fold f of the images, by a hash of their ids, has the task τ_f: the (f mod S)-th of the S sources, and for that task
    itself the next one. O_τ comes from a copy of τ's head for fold f, which starts as the head itself and learns, on
    the features that the trunk gives at each step and without a gradient to them, from all of τ's images but those of
    the fold, by the same loss with the fold's terms left out. (The trunk sees all images.)

    Copies have an optimizer of their own, of the recipe's kind, rate and clipping; nothing of them is in the network,
    its gradient or its weights file. There are up to two for each fold, each with a forward and backward pass of
    the head on its task's batch in every step.

    Args:
        setting: What it may know of the run.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._folds = Folds(setting.data, setting.config.folds)
        order = setting.sources
        self._sources = {
            target: tuple(
                next(one for one in order[fold % len(order) :] + order[: fold % len(order)] if one in among)
                for fold in range(setting.config.folds)
            )
            for target, among in setting.pairs.items()
        }
        wanted = sorted({(source, fold) for sources in self._sources.values() for fold, source in enumerate(sources)})
        self._heads: dict[Key, nn.Module] = {
            key: deepcopy(setting.network.heads[key[0]]).to(setting.engine.device).train() for key in wanted
        }
        self._optimizer = build_optimizer(self._modules(), setting.training.optimizer)
        self._gradients: dict[Key, list[Tensor]] = {}
        self._step = 0

    def sources(self, step: int, target: str) -> Sequence[str]:
        """τ_f for each fold."""
        return self._sources[target]

    def choice(self, step: int) -> Choice:
        """What a step does, and that it teaches the copies."""
        self._step = step
        return replace(super().choice(step), fold=self._folds, heads=self._heads, learn=self._learn)

    def asked(self) -> Iterable[nn.Module]:
        """The copies."""
        return self._heads.values()

    def take(self, losses: Mapping[str, float], rate: float) -> None:
        """End the step of the copies whose tasks are in it.

        Raises:
            HarnessError: A gradient is not finite.
        """
        engine, limit = self.setting.engine, self.setting.training.gradient_clip
        for key, head in self._heads.items():
            if key[0] not in losses:
                continue
            parameters = _trained(head)
            found = self._gradients.get(key) or [torch.zeros_like(one) for one in parameters]
            flat = torch.cat([one.flatten() for one in found])
            engine.average(flat)
            pieces = flat.split([one.numel() for one in parameters])
            for parameter, piece in zip(parameters, pieces, strict=True):
                parameter.grad = piece.view(parameter.shape)
            norm = torch.nn.utils.clip_grad_norm_(parameters, float("inf") if limit is None else limit)
            if not torch.isfinite(norm):
                raise HarnessError(
                    f"training stopped: the norm of the gradient of the head of {key[0]} for fold {key[1]} became"
                    f" {float(norm)} at step {self._step}; lower training.optimizer.learning_rate"
                )
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._gradients = {}

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"heads": self._modules().state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore `state`."""
        self._modules().load_state_dict(state["heads"])
        self._optimizer.load_state_dict(state["optimizer"])

    def _modules(self) -> nn.ModuleDict:
        return nn.ModuleDict({f"{source} {fold}": head for (source, fold), head in self._heads.items()})

    def _learn(self, task: str, features: Features, batch: Batch, share: float) -> None:
        """Gradients of a task's copies on one part of a step.

        The loss is a sum over n things divided by n (see `split`); of the sum the fold's terms are left out. So parts
        and processes add up to the whole step.
        """
        device = self.setting.engine.device
        folds = [self._folds(task, image) for image in batch.ids] if any(task == key[0] for key in self._heads) else []
        for key, head in self._heads.items():
            rows = [row for row, fold in enumerate(folds) if fold != key[1]]
            if key[0] != task or not rows:
                continue
            part, parameters, own = select(batch, rows), _trained(head), _detached(chosen(features, rows))
            # Some losses draw samples and drop units: never from a stream that something else draws from.
            with (
                torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
                torch.autocast(device.type, enabled=False),
            ):
                torch.manual_seed(derive_seed("fold head", self.setting.seed, self._step, *key))
                head_: Any = head
                loss = head_.loss(own, part) * (max(1, head_.count(part)) / max(1, head_.count(batch)) * share)
                gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            found = [
                torch.zeros_like(one) if gradient is None else gradient
                for one, gradient in zip(parameters, gradients, strict=True)
            ]
            before = self._gradients.get(key)
            self._gradients[key] = found if before is None else [a + b for a, b in zip(before, found, strict=True)]


def _trained(head: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in head.parameters() if parameter.requires_grad]


def _detached(features: Features) -> Features:
    """Features in full precision without a graph."""
    return Features(
        {stride: level.detach().float() for stride, level in features.pyramid.items()},
        features.pooled.detach().float(),
        None,
    )
