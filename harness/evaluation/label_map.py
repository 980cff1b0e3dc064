"""What the label ids of a segmentation data set mean, and the label map of Cityscapes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from harness.errors import HarnessError


class _CardClass(Protocol):
    """What a dataset card says of a class (`harness.cards.SegmentationClass`)."""

    @property
    def name(self) -> str: ...
    @property
    def id(self) -> int: ...
    @property
    def category(self) -> str: ...
    @property
    def evaluated(self) -> bool: ...
    @property
    def has_instances(self) -> bool: ...


@dataclass(frozen=True)
class LabelClass:
    """One class.

    Attributes:
        name: Its name.
        id: Its id in label maps, 0 to 255.
        category: The group it belongs to; empty for none.
        evaluated: False where ground-truth pixels of it are ignored.
        has_instances: Whether single objects are told apart.
        average_size: Pixels of an average instance, which iIoU weighs instances by; None takes the average of the
            ground truth that is evaluated.
    """

    name: str
    id: int
    category: str = ""
    evaluated: bool = True
    has_instances: bool = False
    average_size: float | None = None


@dataclass(frozen=True)
class LabelMap:
    """All classes whose ids may occur, in the order in which scores are listed.

    Raises:
        HarnessError: No class is evaluated, or an id is out of range or occurs twice.
    """

    classes: tuple[LabelClass, ...]

    def __post_init__(self) -> None:
        ids = [c.id for c in self.classes]
        wrong = next((i for i in ids if not 0 <= i <= 255 or ids.count(i) > 1), None)
        if wrong is not None:
            raise HarnessError(f"label map: id {wrong} is not between 0 and 255 or belongs to two classes")
        if not self.evaluated:
            raise HarnessError("label map: at least one class must be evaluated")

    @property
    def evaluated(self) -> tuple[LabelClass, ...]:
        """The classes that are scored."""
        return tuple(c for c in self.classes if c.evaluated)

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories that have evaluated classes, in order of first appearance."""
        return tuple(dict.fromkeys(c.category for c in self.classes if c.evaluated and c.category))

    @classmethod
    def of(cls, classes: Iterable[_CardClass]) -> LabelMap:
        """The label map of a dataset card's ``classes``. Cityscapes' own classes get the official average sizes."""
        official = {(c.name, c.id): c.average_size for c in CITYSCAPES.classes}
        return cls(
            tuple(
                LabelClass(c.name, c.id, c.category, c.evaluated, c.has_instances, official.get((c.name, c.id)))
                for c in classes
            )
        )


def _cityscapes() -> tuple[LabelClass, ...]:
    # Source: cityscapesScripts, helpers/labels.py (classes) and evalPixelLevelSemanticLabeling.py (average sizes).
    # In the order of their ids, from 0 to 33; an asterisk marks the 19 classes that are evaluated.
    names = {
        "void": "unlabeled, ego vehicle, rectification border, out of roi, static, dynamic, ground",
        "flat": "road*, sidewalk*, parking, rail track",
        "construction": "building*, wall*, fence*, guard rail, bridge, tunnel",
        "object": "pole*, polegroup, traffic light*, traffic sign*",
        "nature": "vegetation*, terrain*",
        "sky": "sky*",
        "human": "person*, rider*",
        "vehicle": "car*, truck*, bus*, caravan, trailer, train*, motorcycle*, bicycle*",
    }
    average_size = {
        "person": 3462.4756337644,
        "rider": 3930.4788056518,
        "car": 12794.0202738185,
        "truck": 27855.1264367816,
        "bus": 35732.1511111111,
        "caravan": 36771.8241758242,
        "trailer": 16926.9763313609,
        "train": 67583.7075812274,
        "motorcycle": 6298.7200839748,
        "bicycle": 4672.3249222261,
    }
    listed = [(name, category) for category, text in names.items() for name in text.split(", ")]
    return tuple(
        LabelClass(
            name := marked.rstrip("*"),
            number,
            category,
            evaluated=marked.endswith("*"),
            has_instances=category in ("human", "vehicle"),
            average_size=average_size.get(name),
        )
        for number, (marked, category) in enumerate(listed)
    )


CITYSCAPES = LabelMap(_cityscapes())
