"""A record's gallery: a few of its best and worst predictions as small pictures, where the data may be shown.

Made when predictions are scored, because images and predictions are not kept with the record. What is stored, and how
it is read back, is `harness.board.gallery`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from harness.board.gallery import MAX_SIDE, Example, Gallery, Sheet, gallery_files
from harness.data.samples import Adapter
from harness.errors import HarnessError
from harness.evaluation.metric import Result
from harness.gallery.choosing import CANDIDATES, Side, choose
from harness.gallery.drawing import PANELS, Drawn, painter

QUALITY = 80  # of WebP
GAP = 4  # pixels between panels and between examples
BACKGROUND = (128, 128, 128)

Scored = tuple[Adapter, Path, Result]  # a split, its predictions, and their score


def make_gallery(scored: Mapping[str, Scored]) -> dict[str, bytes]:
    """Draw the gallery of one record.

    Args:
        scored: By card what was predicted and how it was scored.

    Returns:
        The files to store beside the record, by name; empty where no card allows its images to be shown.
    """
    sheets: dict[str, Sheet] = {}
    pictures: dict[str, bytes] = {}
    for card, (adapter, predictions, result) in scored.items():
        if adapter.card.redistributable:
            examples = _examples(adapter, predictions, result)
            if examples:
                sheets[card], pictures[card] = _sheet(adapter, len(result.ids), examples)
    return gallery_files(Gallery(sheets=sheets), pictures)


def _examples(adapter: Adapter, predictions: Path, result: Result) -> list[tuple[Side, str, float, Drawn]]:
    place = {name: number for number, name in enumerate(adapter.ids)}
    paint = painter(adapter, predictions)
    found = []
    for side, name, value in choose(result):
        try:
            found.append((side, name, value, paint(adapter[place[name]], side)))
        except HarnessError:  # an image that is not on this machine: predictions can be scored without it
            continue
    return found


def _sheet(adapter: Adapter, images: int, examples: Sequence[tuple[Side, str, float, Drawn]]) -> tuple[Sheet, bytes]:
    """All examples in one picture, one below the other."""
    rows = [_joined(drawn.panels) for *_, drawn in examples]
    width, height = max(row.width for row in rows), sum(row.height + GAP for row in rows) - GAP
    picture = Image.new("RGB", (width, min(height, MAX_SIDE)), BACKGROUND)
    placed = []
    top = 0
    for row, (side, name, value, drawn) in zip(rows, examples, strict=True):
        picture.paste(row, (0, top))
        placed.append(
            Example(id=name[:300], side=side, value=value, y=top, width=row.width, height=row.height, lines=drawn.lines)
        )
        top += row.height + GAP
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=QUALITY, method=6)
    content = stream.getvalue()
    panels, drawing = PANELS[adapter.task]
    among = f"all {images:,}" if images <= CANDIDATES else f"{CANDIDATES:,} of {images:,}"
    sheet = Sheet(
        sha256=hashlib.sha256(content).hexdigest(),
        width=picture.width,
        height=picture.height,
        panels=list(panels),
        note=f"Best and worst of {among} images by the headline number of the image alone; equals are drawn by lot. "
        + drawing,
        examples=placed,
    )
    return sheet, content


def _joined(panels: Sequence[Image.Image]) -> Image.Image:
    width = sum(panel.width + GAP for panel in panels) - GAP
    row = Image.new("RGB", (width, panels[0].height), BACKGROUND)
    left = 0
    for panel in panels:
        row.paste(panel, (left, 0))
        left += panel.width + GAP
    return row
