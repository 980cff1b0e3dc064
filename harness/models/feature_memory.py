"""Features of a frozen backbone, computed once for every different image of a run (linear probing)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

LIMIT = 2 * 1024**3  # bytes of features that are kept
CHUNK = 16  # images that are computed together

Outputs = dict[str, Tensor]


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
    """

    def __init__(self, body: nn.Module) -> None:
        self._body = body
        self._weights: list[tuple[int, int]] = []
        self._kept: dict[bytes, Outputs] = {}
        self._bytes = 0

    @torch.no_grad()
    def recall(self, images: Tensor, compute: Callable[[Tensor], Outputs]) -> Outputs:
        """What `compute` gives for images.

        Args:
            images: [B, 3, H, W], as `compute` takes them.
            compute: From float [CHUNK, 3, H, W] to tensors whose first dimension is the image.
        """
        weights = [(parameter.data_ptr(), parameter._version) for parameter in self._body.parameters()]
        if weights != self._weights:
            self._weights, self._kept, self._bytes = weights, {}, 0
        keys = _keys(images)
        missing = {key: row for row, key in enumerate(keys) if key not in self._kept}
        found = self._compute(images, missing, compute)
        rows = [self._kept.get(key) or found[key] for key in keys]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def _compute(self, images: Tensor, missing: dict[bytes, int], compute: Callable[[Tensor], Outputs]) -> Any:
        found: dict[bytes, Outputs] = {}
        order = list(missing.items())
        for start in range(0, len(order), CHUNK):
            chunk = order[start : start + CHUNK]
            rows = [row for _, row in chunk] + [chunk[-1][1]] * (CHUNK - len(chunk))
            outputs = compute(images[rows])
            for place, (key, _) in enumerate(chunk):
                one = {name: value[place].clone() for name, value in outputs.items()}
                found[key] = one
                size = sum(value.nbytes for value in one.values())
                if self._bytes + size <= LIMIT:
                    self._kept[key] = one
                    self._bytes += size
        return found


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
