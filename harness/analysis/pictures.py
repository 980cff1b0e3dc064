"""What tokens look at, drawn over the images that the network saw."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from harness.analysis.attention import Look
from harness.analysis.opening import Run, evenly
from harness.analysis.prefixes import watched
from harness.analysis.probe import single_pass, whole_images
from harness.data.batches import Batch, VqaBatch
from harness.models.backbones.base import ImageBackbone

SHOWN_IMAGES = 3
SHOWN_TOKENS = 3
SIDE = 128  # of a picture's longer side, in pixels
HIGHLIGHT = np.array([255.0, 140.0, 0.0])


def maps(run: Run, name: str, rank: dict[str, list[float] | None]) -> list[dict[str, Any]]:
    """For some evaluation images of a task where the tokens look, at each site over the image.

    Of inserted tokens it is drawn who looks at them.

    Args:
        run: The run, with tokens.
        name: The task's data set. Its images must be free to be shown.
        rank: By site a number for each token; those with the lowest are shown.

    Returns:
        One per image: ``id``, ``image`` and ``sites[]`` with ``site``, ``grid`` [h, w] and ``views[]``: ``token`` (None
        for the mean over tokens) and ``picture``. Pictures are addresses of JPEG data.
    """
    data = whole_images(run, name, run.data[name].adapter)
    data.rows = evenly(len(data.adapter), SHOWN_IMAGES)
    batch = data.batch([(-1, place) for place in range(len(data))]).to(run.engine.device)
    looks: list[Look] = []
    with watched(run.network, looks.append):
        single_pass(run, name, batch)
    found: list[dict[str, Any]] = []
    for row, image_id in enumerate(batch.ids):
        sites = []
        for look in looks:
            between = _between(look)
            grid = None if between is None else grid_of(run, name, look.site, batch, between.shape[-1])
            place = _sample(row, batch, 0 if between is None else len(between))
            if grid is None or between is None or place is None:
                continue
            height, width, before, stride = grid
            weights = between[place].mean(0)[:, before:].unflatten(1, (height, width)).cpu()  # [K, h, w]
            order = rank.get(look.site) or [1.0] * len(weights)
            chosen = sorted(range(len(weights)), key=order.__getitem__)[:SHOWN_TOKENS]
            views = [(None, weights.mean(0)), *((token, weights[token]) for token in chosen)]
            sites.append(
                {
                    "site": look.site,
                    "grid": [height, width],
                    "views": [
                        {"token": token, "picture": address(overlay(batch, row, view.numpy(), stride))}
                        for token, view in views
                    ],
                }
            )
        found.append({"id": image_id, "image": address(overlay(batch, row)), "sites": sites})
    return found


def _between(look: Look) -> Tensor | None:
    """What is drawn, float [B, heads, K, N]: where tokens look, or how much each feature looks at inserted ones."""
    if look.total is None or look.write is None:
        return look.read if look.total is None else None
    return (look.write * look.total[..., None]).transpose(2, 3)


def grid_of(run: Run, name: str, site: str, batch: Batch, positions: int) -> tuple[int, int, int, int] | None:
    """Height and width of the map of a site's positions over the image, how many stand before them, and its stride.

    Returns:
        None where a site's features are no map over the image.
    """
    size = (batch.images.shape[-2], batch.images.shape[-1])
    for module in run.network.modules():
        if isinstance(module, ImageBackbone):
            unit = module.structure.divisor
            padded = [-(-side // unit) * unit for side in size]
            for stage in module.structure.stages:
                height, width = (-(-side // stage.stride) for side in padded)
                if site.endswith(f"backbone.{stage.module}") and height * width + stage.prefix == positions:
                    return height, width, stage.prefix, stage.stride
    stride = getattr(run.network.heads[name], "stride", None)
    if site.startswith("vqa.image") and isinstance(stride, int):
        height, width = (-(-side // stride) for side in size)
        return (height, width, 0, stride) if height * width == positions else None
    return None


def overlay(batch: Batch, row: int, weights: NDArray[np.float32] | None = None, stride: int = 1) -> Image.Image:
    """An image as the network saw it, without padding; what gets most weight is tinted.

    Args:
        batch: Of images.
        row: Which one.
        weights: float32 [h, w] over the image, or None.
        stride: Pixels of the image to a weight.
    """
    pixels = batch.images[row].permute(1, 2, 0).cpu().numpy().astype(np.float64)
    height, width = pixels.shape[:2]
    if weights is not None:
        cells = [
            np.minimum(np.arange(side) // stride, count - 1)
            for side, count in zip((height, width), weights.shape, strict=True)
        ]
        tint = (weights / max(float(weights.max()), 1e-12))[np.ix_(*cells)][..., None] * 0.75
        pixels = pixels * (1 - tint) * (0.45 + 0.55 * tint) + HIGHLIGHT * tint
    if batch.contents is not None:
        height, width = batch.contents[row].tolist()
        pixels = pixels[:height, :width]
    picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    scale = SIDE / max(height, width)
    return picture.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BILINEAR)


def address(picture: Image.Image) -> str:
    """A picture as ``data:image/jpeg;base64,…``."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _sample(row: int, batch: Batch, rows: int) -> int | None:
    """Where a site has an image: at its row, or where questions come in at the image's first question."""
    if rows == len(batch.ids):
        return row
    if isinstance(batch, VqaBatch) and rows == len(batch.words):
        own: Tensor = (batch.image_index == row).nonzero()
        return int(own[0]) if len(own) else None
    return None
