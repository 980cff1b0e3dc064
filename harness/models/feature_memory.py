"""Features of a frozen backbone, computed once for every different image of a run (linear probing)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

LIMIT = 2 * 1024**3  # bytes of features that are kept
CHUNK = 16  # images that are computed together
POOLED = "pooled"  # beside the maps, which have the names of modules

Outputs = dict[str, Tensor]
Compute = Callable[[Tensor], Outputs]


class FeatureMemory:
    """Keeps what a frozen network makes of an image, under the image's own pixels.

    Nothing else needs to be in the key: pixels are what is left of the image, its transform and its augmentation, the
    precision is in it, and when a weight changes everything is forgotten. So it is right for every task and every
    augmentation, and it helps where images come again.

    The last digits of a result depend on the shape of the batch that it is computed in. Images are therefore always
    computed in batches of one size, whether others are remembered or not, and a run gives the same numbers with and
    without the memory.

    Args:
        body: The network. It must be in evaluation mode and get no gradient.
        limit: Bytes of features that are kept; 0 keeps none.
    """

    def __init__(self, body: nn.Module, limit: int = LIMIT) -> None:
        self._body = body
        self._limit = limit
        self._weights: list[tuple[int, int]] = []
        self._kept: dict[bytes, Outputs] = {}
        self._bytes = 0

    @torch.no_grad()
    def recall(self, images: Tensor, compute: Compute, mapped: int) -> Outputs:
        """What `compute` gives for images.

        Args:
            images: [B, 3, H, W], as `compute` takes them.
            compute: From float [CHUNK, 3, H, W] to tensors whose first dimension is the image.
            mapped: For how many of the images, from the first on, maps are needed beside the pooled feature.

        Returns:
            The pooled feature of all images, and the maps of the first `mapped` (none if that is 0).
        """
        weights = [(parameter.data_ptr(), parameter._version) for parameter in self._body.parameters()]
        if weights != self._weights:
            self._weights, self._kept, self._bytes = weights, {}, 0
        keys = _keys(images)
        whole = set(keys[:mapped])
        missing = {
            key: row
            for row, key in enumerate(keys)
            if key not in self._kept or (key in whole and len(self._kept[key]) == 1)
        }
        found: dict[bytes, Outputs] = {}
        if missing:
            outputs = in_chunks(images[list(missing.values())], compute)
            for place, key in enumerate(missing):
                found[key] = {name: value[place] for name, value in outputs.items() if key in whole or name == POOLED}
                self._keep(key, found[key])
        rows = [found[key] if key in found else self._kept[key] for key in keys]
        kept = {POOLED: stack([row[POOLED] for row in rows])}
        names = [name for name in rows[0] if name != POOLED] if mapped else []
        return restored(kept | {name: stack([row[name] for row in rows[:mapped]]) for name in names})

    def _keep(self, key: bytes, outputs: Outputs) -> None:
        size = sum(value.nbytes for value in outputs.values())
        if self._bytes + size <= self._limit:
            self._kept[key] = {name: value.clone() for name, value in outputs.items()}  # not the whole chunk
            self._bytes += size


@torch.no_grad()
def in_chunks(images: Tensor, compute: Compute) -> Outputs:
    """What `compute` gives for images, computed CHUNK at a time (the last ones filled up with repetitions).

    Returns:
        By name float [B, F] or, of maps, float [B, h, w, C], dense: channels last is how networks work on them.
    """
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK]
        filled = torch.cat([chunk, chunk[-1:].expand(CHUNK - len(chunk), *chunk.shape[1:])])
        for name, value in compute(filled).items():
            rows = value[: len(chunk)]
            parts.setdefault(name, []).append(rows.permute(0, 2, 3, 1) if rows.dim() == 4 else rows)
    return {name: stack([row for part in values for row in part]) for name, values in parts.items()}


def restored(outputs: Outputs) -> Outputs:
    """Maps as float [B, C, h, w] again, whose memory layout is the same wherever they come from.

    Later layers choose their arithmetic by the layout.
    """
    return {name: value.permute(0, 3, 1, 2) if value.dim() == 4 else value for name, value in outputs.items()}


def stack(rows: Sequence[Tensor]) -> Tensor:
    """`torch.stack` into dense memory, also where a dimension of size 1 leaves torch a choice."""
    out = rows[0].new_empty((len(rows), *rows[0].shape))
    return torch.stack(list(rows), out=out)


def _keys(images: Tensor) -> list[bytes]:
    """A key of each image: of its pixels, its size, and the precision in force."""
    kind = images.device.type
    precision = str(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else str(images.dtype)
    start = hashlib.blake2b(f"{tuple(images.shape[1:])} {precision}".encode(), digest_size=16)
    keys = []
    for image in images.detach().cpu().contiguous():
        digest = start.copy()
        digest.update(image.numpy().data)
        keys.append(digest.digest())
    return keys
