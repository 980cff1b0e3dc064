"""The attention weights that other people's transformer blocks compute and keep to themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Watch:
    """The weights of one block's self-attention, as its last call computed them.

    Attributes:
        weights: float [B, heads, N, N], rows sum to 1; None until there was a call.
    """

    weights: Tensor | None = None


@contextmanager
def watching(blocks: Mapping[nn.Module, Watch]) -> Iterator[None]:
    """Within, each block's attention weights are written to its watch; what blocks compute stays the same, bit for bit.

    What is seen: `torch.nn.functional.scaled_dot_product_attention`, by which timm, torch and this package attend, and
    `nn.MultiheadAttention`, which in evaluation goes a way of its own. A block that attends otherwise leaves its watch
    empty.

    Args:
        blocks: Modules with one self-attention each.
    """
    current: list[Watch | None] = [None]
    plain = F.scaled_dot_product_attention

    def enter(watch: Watch) -> Any:
        def hook(module: nn.Module, inputs: object) -> None:
            watch.weights = None
            current[0] = watch

        return hook

    def leave(module: nn.Module, inputs: object, output: object) -> None:
        current[0] = None

    def seen(query: Tensor, key: Tensor, *rest: Any, **options: Any) -> Tensor:
        watch = current[0]
        if watch is not None and query.dim() == 4 and query.shape[-2] == key.shape[-2]:
            given = dict(zip(("value", "attn_mask", "dropout_p", "is_causal", "scale"), rest, strict=False)) | options
            watch.weights = _weights(query, key, given)
        return plain(query, key, *rest, **options)

    def multihead(module: Any, inputs: tuple[Any, ...], options: dict[str, Any], output: object) -> None:
        watch = current[0]
        if watch is not None:
            watch.weights = _multihead(module, inputs, options)

    handles = []
    for block, watch in blocks.items():
        # The last hook to be entered, the first to be left: others may stop a block between two of its hooks.
        handles.append(block.register_forward_pre_hook(enter(watch)))
        handles.append(block.register_forward_hook(leave, prepend=True))
        handles += [
            part.register_forward_hook(multihead, with_kwargs=True, prepend=True)
            for part in block.modules()
            if isinstance(part, nn.MultiheadAttention)
        ]
    F.scaled_dot_product_attention = seen
    try:
        yield
    finally:
        F.scaled_dot_product_attention = plain
        for handle in handles:
            handle.remove()


def _weights(query: Tensor, key: Tensor, given: Mapping[str, Any]) -> Tensor:
    """softmax(Q K^T s + mask) in float32, with s = 1/sqrt(d) unless another scale is given."""
    query, key = query.detach().float(), key.detach().float()
    scale = given.get("scale") or 1 / math.sqrt(query.shape[-1])
    scores = query @ key.transpose(-1, -2) * scale
    mask = given.get("attn_mask")
    if given.get("is_causal"):
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        # Here True marks what may be seen.
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1)


def _multihead(module: Any, inputs: tuple[Any, ...], options: Mapping[str, Any]) -> Tensor | None:
    """The weights of a `nn.MultiheadAttention` whose queries, keys and values are one sequence."""
    names = ("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask")
    given = dict(zip(names, inputs, strict=False)) | dict(options)
    if module.in_proj_weight is None or given["query"].shape != given["key"].shape:
        return None
    sequences = [given[name].detach() for name in ("query", "key")]
    if not module.batch_first:
        sequences = [one.transpose(0, 1) for one in sequences]
    width = module.embed_dim
    projected = []
    for number, one in enumerate(sequences):
        part = slice(number * width, (number + 1) * width)
        bias = None if module.in_proj_bias is None else module.in_proj_bias[part]
        heads = F.linear(one, module.in_proj_weight[part], bias).unflatten(-1, (module.num_heads, -1))
        projected.append(heads.transpose(1, 2))
    mask = given.get("attn_mask")
    if mask is not None:
        if mask.dtype == torch.bool:
            mask = ~mask  # there True marks what may not be seen
        if mask.dim() == 3:
            mask = mask.unflatten(0, (-1, module.num_heads))
    return _weights(projected[0], projected[1], {"attn_mask": mask})
