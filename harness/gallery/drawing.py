"""Panels of one image: as it is, with its ground truth, with what was predicted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from harness.board.text import percent
from harness.cards import Task
from harness.data.label_map_folders import LabelMapFolders
from harness.data.samples import Adapter, ClassificationSample, DetectionSample, SegmentationSample, VqaSample
from harness.evaluation.label_maps import LabelMaps
from harness.evaluation.predictions import read_classification, read_detections, read_vqa

SIDE = 160  # pixels that a panel's longer side is brought to, or the largest whole multiple below for small images
THRESHOLD = 0.3  # score from which a box is drawn
MAX_BOXES = 30
MAX_QUESTIONS = 2
OPACITY = 0.6  # of label maps over their image

# Twelve colours that stay apart on light and dark images; further classes begin again.
COLOURS = (
    (230, 75, 53), (77, 187, 213), (0, 160, 135), (60, 84, 136), (243, 155, 127), (132, 145, 180),
    (145, 209, 194), (220, 0, 0), (126, 97, 72), (176, 156, 133), (254, 205, 50), (160, 80, 200),
)  # fmt: skip
IGNORED = (90, 90, 90)

PANELS: dict[Task, tuple[tuple[str, ...], str]] = {
    "classification": (("image",), ""),
    "detection": (
        ("image", "ground truth", "prediction"),
        f"Predicted boxes with a score of at least {THRESHOLD} are drawn, one colour per class.",
    ),
    "segmentation": (("image", "ground truth", "prediction"), "One colour per class; grey is not scored."),
    "vqa": (("image",), f"At most {MAX_QUESTIONS} questions per image."),
}


@dataclass(frozen=True)
class Drawn:
    """What is seen of one image.

    Attributes:
        panels: Of equal size.
        lines: Label and text.
    """

    panels: tuple[Image.Image, ...]
    lines: list[tuple[str, str]]


Painter = Callable[[Any, str], Drawn]  # of a sample and the side that it is on


def painter(adapter: Adapter, predictions: Path) -> Painter:
    """What draws the samples of a split with what was predicted for them.

    Args:
        adapter: The split.
        predictions: In the task's official format, already scored.
    """
    return _PAINTERS[adapter.task](adapter, predictions)


def _classification(adapter: Adapter, predictions: Path) -> Painter:
    scores = read_classification(predictions, adapter.ids, len(adapter.classes))
    place = {name: number for number, name in enumerate(adapter.ids)}

    def paint(sample: ClassificationSample, side: str) -> Drawn:
        row = scores[place[sample.id]]
        lines = [("ground truth", adapter.classes[sample.label])]
        if row.ndim == 0:
            lines.append(("prediction", adapter.classes[int(row)]))
        else:
            shares = np.exp(row - row.max(), dtype=np.float64)
            label = int(row.argmax())
            lines.append(("prediction", f"{adapter.classes[label]} ({percent(shares[label] / shares.sum(), 0)}%)"))
        return Drawn((_fitted(sample.image)[0],), _short(lines))

    return paint


def _detection(adapter: Adapter, predictions: Path) -> Painter:
    categories: NDArray[np.int64] = adapter.category_ids  # type: ignore[attr-defined]
    found = read_detections(predictions, {int(name): None for name in adapter.ids}, categories.tolist())
    index = {int(category): number for number, category in enumerate(categories)}

    def paint(sample: DetectionSample, side: str) -> Drawn:
        own = np.flatnonzero((found.image_ids == int(sample.id)) & (found.scores >= THRESHOLD))
        own = own[np.argsort(-found.scores[own], kind="stable")][:MAX_BOXES]
        predicted = found.boxes[own].copy()
        predicted[:, 2:] += predicted[:, :2]
        labels = [index[int(category)] for category in found.category_ids[own]]
        plain, scale = _fitted(sample.image)
        truth = _boxed(plain, sample.boxes * scale, sample.labels.tolist(), adapter.classes)
        lines = [
            ("ground truth", _counted([adapter.classes[n] for n in sample.labels])),
            ("prediction", _counted([adapter.classes[n] for n in labels])),
        ]
        return Drawn((plain, truth, _boxed(plain, predicted * scale, labels, adapter.classes)), _short(lines))

    return paint


def _segmentation(adapter: Adapter, predictions: Path) -> Painter:
    train_ids: NDArray[np.uint8] = adapter.train_ids  # type: ignore[attr-defined]
    read: Callable[[str], NDArray[np.uint8]]
    if isinstance(adapter, LabelMapFolders):
        maps, place = adapter.predicted(predictions), {name: number for number, name in enumerate(adapter.ids)}
        read = lambda name: maps[place[name]]  # noqa: E731 - one of two ways to read
    else:
        read = LabelMaps(predictions, adapter.ids, adapter.ids).read

    def paint(sample: SegmentationSample, side: str) -> Drawn:
        predicted = train_ids[read(sample.id)]
        plain, _ = _fitted(sample.image)
        lines = [
            ("ground truth", ", ".join(_present(sample.mask, adapter.classes))),
            ("prediction", ", ".join(_present(predicted, adapter.classes))),
        ]
        return Drawn((plain, _coloured(plain, sample.mask), _coloured(plain, predicted)), _short(lines))

    return paint


def _vqa(adapter: Adapter, predictions: Path) -> Painter:
    answers = read_vqa(predictions, adapter.question_ids.tolist())  # type: ignore[attr-defined]

    def paint(sample: VqaSample, side: str) -> Drawn:
        asked = []
        for number, question, given in zip(sample.question_ids.tolist(), sample.questions, sample.answers, strict=True):
            agreed = Counter(given).most_common(1)[0][0]
            answer = answers.get(number, "")
            asked.append((answer == agreed, [("question", question), ("ground truth", agreed), ("prediction", answer)]))
        asked.sort(key=lambda one: one[0] == (side == "worst"))
        shown = [line for _, lines in asked[:MAX_QUESTIONS] for line in lines]
        return Drawn((_fitted(sample.image)[0],), _short(shown))

    return paint


_PAINTERS: dict[Task, Callable[[Adapter, Path], Painter]] = {
    "classification": _classification,
    "detection": _detection,
    "segmentation": _segmentation,
    "vqa": _vqa,
}


def _fitted(image: NDArray[np.uint8]) -> tuple[Image.Image, float]:
    """An image at the size of a panel, and its scale; small ones grow by whole numbers, so that pixels stay square."""
    picture = Image.fromarray(image)
    scale = SIDE / max(picture.size)
    if scale >= 1:
        scale = float(int(scale))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS), scale


def _boxed(picture: Image.Image, boxes: NDArray[Any], labels: Sequence[int], classes: Sequence[str]) -> Image.Image:
    """Boxes float [N, 4], xyxy in pixels of the panel, with the names of their classes."""
    drawn = picture.copy()
    pen = ImageDraw.Draw(drawn)
    for box, label in zip(boxes.tolist(), labels, strict=True):
        left, top, right, bottom = box
        colour = COLOURS[label % len(COLOURS)]
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=2)
        name = classes[label][:14]
        wide = pen.textlength(name)
        y = top - 11 if top >= 11 else min(bottom, drawn.height - 11)
        x = min(left, drawn.width - wide - 2)
        pen.rectangle((x, y, x + wide + 2, y + 10), fill=colour)
        pen.text((x + 1, y), name, fill=(255, 255, 255) if sum(colour) < 480 else (0, 0, 0))
    return drawn


def _coloured(picture: Image.Image, train_ids: NDArray[np.uint8]) -> Image.Image:
    palette = np.full((256, 3), IGNORED, dtype=np.uint8)
    for number in range(255):
        palette[number] = COLOURS[number % len(COLOURS)]
    overlay = Image.fromarray(palette[train_ids]).resize(picture.size, Image.Resampling.NEAREST)
    return Image.blend(picture, overlay, OPACITY)


def _present(train_ids: NDArray[np.uint8], classes: Sequence[str]) -> list[str]:
    """Classes in a label map, largest area first."""
    areas = np.bincount(train_ids.ravel(), minlength=256)[: len(classes)]
    return [classes[n] for n in np.argsort(-areas, kind="stable") if areas[n]]


def _counted(names: Sequence[str]) -> str:
    counts = Counter(names).most_common()
    return ", ".join(f"{count} {name}" if count > 1 else name for name, count in counts) or "nothing"


def _short(lines: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(label, text if len(text) <= 300 else f"{text[:299]}\N{HORIZONTAL ELLIPSIS}") for label, text in lines]
