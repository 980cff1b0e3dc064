"""Gradient checkpointing: stages of a backbone are computed again rather than kept for the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from harness.errors import HarnessError
from harness.models.backbones.base import ImageBackbone
from harness.models.network import MultiTaskNetwork

FIELD = "training.gradient_checkpointing"


@contextmanager
def recomputing(network: MultiTaskNetwork, wanted: bool) -> Iterator[None]:
    """Compute stages of the backbones again in backward passes, for the time of a block (Chen 2016, arXiv 1604.06174).

    What happens between stages happens once: features are read, and tokens exchanged, by hooks on the stages, which the
    second computation passes by. It draws what the first one drew (dropout), and batch norms remember nothing of it.

    Args:
        network: Its parameters and their names stay the same.
        wanted: Whether to do anything.

    Raises:
        HarnessError: Something within a stage would not be the same the second time.
    """
    stages = _stages(network) if wanted else []
    for stage in stages:
        stage.forward = partial(_recomputed, stage, stage.forward)
    try:
        yield
    finally:
        for stage in stages:
            del stage.forward


def _stages(network: MultiTaskNetwork) -> list[nn.Module]:
    found = []
    for backbone in network.modules():
        if not isinstance(backbone, ImageBackbone):
            continue
        if backbone.told_inside:
            raise HarnessError(
                f"{FIELD}: blocks of {backbone.name} read the number of placeholder tokens in their sequence while they"
                " run, and would read another one the second time; take mechanism: exchange, or leave it out"
            )
        for stage in backbone.structure.stages:
            module = backbone.body.get_submodule(stage.module)
            inner = [part for part in module.modules() if part is not module]
            if any(part._forward_hooks or part._forward_pre_hooks for part in inner):
                raise HarnessError(
                    f"{FIELD}: this network reads features within {stage.module} of {backbone.name}, which would be"
                    " read twice; leave it out"
                )
            if any(one.requires_grad for one in module.parameters()):  # of an activation alone there is nothing to save
                found.append(module)
    return found


def _recomputed(stage: nn.Module, forward: Any, *inputs: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **named)
    given = [one for one in (*inputs, *named.values()) if isinstance(one, Tensor)]
    versions = [one._version for one in given]
    output = checkpoint(forward, *inputs, use_reentrant=False, context_fn=partial(_contexts, stage), **named)
    if versions != [one._version for one in given]:
        raise HarnessError(f"{FIELD}: a stage of this backbone changes its input in place; leave it out")
    return output


def _contexts(stage: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Around the first computation, and around every further one."""
    return nullcontext(), _RememberingNothing(stage)


class _RememberingNothing:
    """Statistics of batch norms are copies meanwhile, of which there must be as many as the first time.

    Args:
        stage: Its batch norms, of any subclass.
    """

    def __init__(self, stage: nn.Module) -> None:
        self._norms = [module for module in stage.modules() if isinstance(module, _BatchNorm)]
        self._own: list[dict[str, Tensor | None]] = []

    def __enter__(self) -> None:
        self._own = [dict(norm._buffers) for norm in self._norms]
        for norm, buffers in zip(self._norms, self._own, strict=True):
            norm._buffers.update({name: value.clone() for name, value in buffers.items() if value is not None})

    def __exit__(self, *_: object) -> None:
        for norm, buffers in zip(self._norms, self._own, strict=True):
            norm._buffers.update(buffers)
