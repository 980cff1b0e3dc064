"""Placeholder tokens in a transformer's sequence (Visual Prompt Tuning; Jia 2022)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_MASK = "attn_mask"  # as timm, open_clip and torch call it: numbers that are added to attention scores

Tokens = Callable[[str, Tensor], Tensor]


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
        masked: Let nothing but the tokens attend to the tokens, in blocks that take a mask.

    Attributes:
        blocks: By name.
        deep: As given.
        maskable: Whether all blocks take one.
        tells: Whether modules inside the blocks are told of the tokens during a forward pass: rotary positions, masks.
    """

    def __init__(self, body: nn.Module, blocks: Sequence[str], existing: int, deep: bool, masked: bool = False) -> None:
        self.lengths: set[int] = set()  # of the sequences that blocks gave back with the tokens in them
        self._existing = existing
        self._tokens: Tokens | None = None
        self._count = 0  # of the tokens that are in the sequence
        modules = [body.get_submodule(name) for name in blocks]
        self.blocks = dict(zip(blocks, modules, strict=True))
        self.deep = deep
        self._rotary: list[Any] = [m for block in modules for m in block.modules() if hasattr(m, "num_prefix_tokens")]
        self._known = [module.num_prefix_tokens for module in self._rotary]
        first, last = (modules, modules) if deep else (modules[:1], modules[-1:])
        self._handles = [
            module.register_forward_pre_hook(self._insert(name)) for name, module in zip(blocks, first, strict=False)
        ]
        self.maskable = all(_masking(block) for block in modules)
        self.tells = masked or bool(self._rotary)
        self._handles += [
            part.register_forward_pre_hook(self._mask, with_kwargs=True)
            for block in (modules if masked else ())
            for part in _masking(block)
        ]
        self._handles += [module.register_forward_hook(self._strip) for module in last]

    @contextmanager
    def inserting(self, tokens: Tokens) -> Iterator[None]:
        """Insert during a forward pass.

        Args:
            tokens: float [B, K, C] for a block, from its name and the sequence float [B, N, C] that comes to it. K may
                differ from block to block.
        """
        self._tokens = tokens
        try:
            yield
        finally:
            self._tokens = None
            self._lengthen(0)

    @property
    def span(self) -> tuple[int, int]:
        """Where the tokens stand in the sequence: the first one's place, and the place after the last."""
        return self._existing, self._existing + self._count

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _lengthen(self, count: int) -> None:
        """Tell rotary positions how many tokens are inserted."""
        self._count = count
        for module, number in zip(self._rotary, self._known, strict=True):
            module.num_prefix_tokens = number + count

    def _insert(self, block: str) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...] | None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if self._tokens is None:
                return None
            sequence, *rest = inputs
            tokens = self._tokens(block, sequence).to(sequence.dtype)
            self._lengthen(tokens.shape[1])
            own, patches = sequence[:, : self._existing], sequence[:, self._existing :]
            return (torch.cat([own, tokens, patches], 1), *rest)

        return hook

    def _mask(
        self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self._tokens is None:
            return None
        sequence: Tensor = inputs[0]
        length, end = sequence.shape[1], self._existing + self._count
        mask = sequence.new_zeros(length, length)
        mask[: self._existing, self._existing : end] = float("-inf")
        mask[end:, self._existing : end] = float("-inf")
        return inputs, {**named, _MASK: mask}

    def _strip(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if self._tokens is None:
            return None
        self.lengths.add(output.shape[1])
        return torch.cat([output[:, : self._existing], output[:, self._existing + self._count :]], 1)


def _masking(block: nn.Module) -> list[nn.Module]:
    """What in a block takes a mask: the block itself, or else the modules in it that do."""
    if _takes_mask(block):
        return [block]
    return [module for module in block.modules() if _takes_mask(module)]


def _takes_mask(module: nn.Module) -> bool:
    return _MASK in inspect.signature(module.forward).parameters
