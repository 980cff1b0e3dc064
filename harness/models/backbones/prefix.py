"""Placeholder tokens in a transformer's sequence (Visual Prompt Tuning; Jia 2022)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Prefix:
    """Inserts tokens after a transformer's own prefix tokens and takes them out again.

    ``shallow``: inserted before the first block, taken out after the last. ``deep``: fresh ones before every block,
    taken out after it. Either way the rest of the model sees the sequence that it knows, so pooling and the reading of
    maps need no change. Models with rotary positions leave their prefix unrotated: they are told that it is longer.

    Args:
        body: The model.
        blocks: Names of its blocks, in order.
        existing: How many prefix tokens (class, registers) it has.
        deep: See above.
    """

    def __init__(self, body: nn.Module, blocks: Sequence[str], existing: int, deep: bool) -> None:
        self.lengths: set[int] = set()  # of the sequences that blocks gave back with the tokens in them
        self._existing = existing
        self._tokens: Callable[[str], Tensor] | None = None
        self._count = 0
        modules = [body.get_submodule(name) for name in blocks]
        self._rotary: list[Any] = [m for block in modules for m in block.modules() if hasattr(m, "num_prefix_tokens")]
        first, last = (modules, modules) if deep else (modules[:1], modules[-1:])
        self._handles = [
            module.register_forward_pre_hook(self._insert(name)) for name, module in zip(blocks, first, strict=False)
        ]
        self._handles += [module.register_forward_hook(self._strip) for module in last]

    @contextmanager
    def inserting(self, tokens: Callable[[str], Tensor], count: int) -> Iterator[None]:
        """Insert during a forward pass.

        Args:
            tokens: float [B, count, C] of a block, by its name.
            count: How many.
        """
        self._tokens, self._count = tokens, count
        known = [module.num_prefix_tokens for module in self._rotary]
        for module, number in zip(self._rotary, known, strict=True):
            module.num_prefix_tokens = number + count
        try:
            yield
        finally:
            self._tokens = None
            for module, number in zip(self._rotary, known, strict=True):
                module.num_prefix_tokens = number

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _insert(self, block: str) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...] | None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if self._tokens is None:
                return None
            sequence, *rest = inputs
            tokens = self._tokens(block).to(sequence.dtype)
            own, patches = sequence[:, : self._existing], sequence[:, self._existing :]
            return (torch.cat([own, tokens, patches], 1), *rest)

        return hook

    def _strip(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if self._tokens is None:
            return None
        self.lengths.add(output.shape[1])
        return torch.cat([output[:, : self._existing], output[:, self._existing + self._count :]], 1)
