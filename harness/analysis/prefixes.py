"""Who looks at inserted tokens, and what they look at: the attention in the blocks of transformers, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from harness.analysis import attention
from harness.analysis.attention import Look
from harness.analysis.self_attention import Watch, watching
from harness.models.backbones.base import ImageBackbone
from harness.models.clip_text import ClipText
from harness.models.network import MultiTaskNetwork
from harness.models.text import TextEncoder

Take = Callable[[Look], None]


@contextmanager
def watched(network: MultiTaskNetwork, take: Take) -> Iterator[None]:
    """Within, `take` is given the attention of every visit to an exchange site, and to every block with a prefix.

    Blocks are called as the sites at their inputs are (or would be, where tokens are inserted once).
    """
    handles: list[Any] = []
    blocks: dict[nn.Module, Watch] = {}
    with ExitStack() as stack:
        stack.enter_context(attention.watched(network, take))
        for path, module in network.named_modules() if network.placeholders is not None else ():
            if isinstance(module, ImageBackbone) and module.prefix is not None:
                handles += _of_images(module, _column(path, module, network.site_names()), blocks, take)
            elif isinstance(module, TextEncoder | ClipText) and module.inserts:
                handles += _of_words(module, blocks, take)
        # Entered last: its hooks end a block before those here look at what it saw.
        stack.enter_context(watching(blocks))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def look(site: str, weights: Tensor, span: tuple[int, int], padding: Tensor | None, reads: bool) -> Look | None:
    """The attention between a sequence and what is inserted in it.

    Args:
        site: The block's name.
        weights: float [B, heads, N + K, N + K], rows sum to 1.
        span: The first of the K inserted tokens and the one after the last.
        padding: bool [B, N], True at padding of the sequence without them, or None.
        reads: Whether anything comes of what the tokens read in this block.

    Returns:
        Reading and writing as at an exchange site: among the features alone and among the tokens alone, rows sum to 1;
        None if nothing is inserted.
    """
    first, end = span
    if first == end:
        return None
    rest = torch.tensor([n for n in range(weights.shape[-1]) if not first <= n < end], device=weights.device)
    on_tokens = weights[:, :, rest, first:end]
    total = on_tokens.sum(-1)
    open_ = weights[:, :, rest] > 0
    even = open_[..., first:end].sum(-1) / open_.sum(-1)
    write = on_tokens / total[..., None] if bool((total > 0).all()) else None
    read = None
    if reads:
        own = weights[:, :, first:end][..., rest]
        own = own if padding is None else own.masked_fill(padding[:, None, None], 0.0)
        read = own / own.sum(-1, keepdim=True) if bool((own.sum(-1) > 0).all()) else None
    return Look(site, read, write, padding, None, total, even)


def _of_images(module: ImageBackbone, column: str, blocks: dict[nn.Module, Watch], take: Take) -> list[Any]:
    prefix = module.prefix
    assert prefix is not None

    def hook(site: str, watch: Watch, reads: bool) -> Any:
        def finish(block: nn.Module, inputs: object, output: object) -> None:
            if watch.weights is None:
                return
            first, end = prefix.span
            padding = module.padding(watch.weights.shape[-1] - (end - first))
            found = look(site, watch.weights, (first, end), padding, reads)
            watch.weights = None
            if found is not None:
                take(found)

        return finish

    handles = []
    names = list(prefix.blocks)
    for number, (name, block) in enumerate(prefix.blocks.items()):
        blocks[block] = Watch()
        # Tokens that are taken out again after a block leave nothing of what they read there.
        reads = not prefix.deep and number < len(names) - 1
        handles.append(block.register_forward_hook(hook(f"{column}backbone.{name}", blocks[block], reads)))
    return handles


def _of_words(module: TextEncoder | ClipText, blocks: dict[nn.Module, Watch], take: Take) -> list[Any]:
    watches = []
    for block in module.blocks:
        blocks[block] = Watch()
        watches.append(blocks[block])

    def finish(encoder: nn.Module, inputs: object, output: Any) -> None:
        length = output.padding.shape[1]
        for number, watch in enumerate(watches):
            if watch.weights is not None:
                reads = module.inserts == 1 and number < len(watches) - 1
                span = (length, watch.weights.shape[-1])
                found = look(f"text.{number}", watch.weights, span, output.padding, reads)
                watch.weights = None
                if found is not None:
                    take(found)

    return [module.register_forward_hook(finish)]


def _column(path: str, module: ImageBackbone, sites: list[str]) -> str:
    """What stands before the names of a backbone's sites: its task's name where each task has a trunk of its own."""
    own = next(iter(module.sites))
    return next((f"{part}/" for part in path.split(".") if f"{part}/{own}" in sites), "")
