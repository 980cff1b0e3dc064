"""What a layout tells the check about one split: its images, what is stated about them, and its counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from harness.cards import DatasetCard
from harness.data import name_lists
from harness.data.checking.findings import Findings
from harness.data.checking.image_files import ImageFiles
from harness.errors import HarnessError


@dataclass
class SplitPlan:
    """One split.

    Attributes:
        images: Where the images lie; None if the layout has no image files.
        names: N image files that exist, as `images` calls them; without `images`, the file that holds each image.
        ids: Their N ids.
        sizes: int32 [N, 2], width and height that the annotations state (0 = nothing stated), or None.
        labels: N label maps that exist, or None for an image without one; None for tasks without label maps.
        digests: uint8 [N, 32], SHA-256 of each image, where the layout holds all images in one file; else None.
        counts: What was counted, by name, for the report.
        size: What the card's ``size`` is compared with.
        objects: What the card's ``objects`` is compared with.
        classes: How many images or objects each class has.
        unlisted: Image files that nothing names, where everything there should be named.
    """

    images: ImageFiles | None
    names: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    sizes: NDArray[np.int32] | None = None
    labels: list[Path | None] | None = None
    digests: NDArray[np.uint8] | None = None
    counts: dict[str, int] = field(default_factory=dict)
    size: int = 0
    objects: int | None = None
    classes: Counter[str] = field(default_factory=Counter)
    unlisted: set[str] = field(default_factory=set)

    def file(self, row: int) -> Path | str:
        """How findings call an image."""
        return self.images.path(self.names[row]) if self.images else self.names[row]


Planner = Callable[[DatasetCard, str, Findings], SplitPlan]


def existing(card: DatasetCard, split: str, key: str, found: Findings) -> Path | None:
    """The path under a key of the split, or None and a finding if the key is not given or nothing is there."""
    if getattr(card.splits[split], key) is None:  # type: ignore[index]
        return None
    path = card.path(split, key)
    if path.exists():
        return path
    found.add("file-missing", split, path, "", f"splits.{split}.{key} does not exist; {card.how_to_get}")
    return None


def read_document(path: Path, split: str, found: Findings) -> Any:
    """A JSON document, or None and a finding."""
    try:
        return orjson.loads(path.read_bytes())
    except OSError as error:
        found.add("file-unreadable", split, path, "", f"cannot be read ({error.strerror}); fetch the file again")
    except orjson.JSONDecodeError as error:
        problem = f"not valid JSON ({error.msg}, line {error.lineno})"
        found.add("file-unreadable", split, path, "", f"{problem}; fetch the file again")
    return None


def mappings(document: Any, key: str, path: Path, split: str, found: Findings) -> Iterable[tuple[int, dict[str, Any]]]:
    """The mappings in the list under `key`, with their numbers; findings for what else is there."""
    items = document.get(key) if isinstance(document, dict) else None
    if not isinstance(items, list):
        message = f"{key}: a list of entries is required here; is this the right file?"
        found.add("file-unreadable", split, path, "", message)
        return
    for number, item in enumerate(items):
        if isinstance(item, dict):
            yield number, item
        else:
            message = f"{key}[{number}] is not a mapping; correct or remove it"
            found.add("entry-invalid", split, path, f"{key}[{number}]", message)


def read_lines(path: Path, split: str, found: Findings) -> list[str]:
    """The lines of a text file that hold something; none and a finding if it cannot be read."""
    try:
        return [line for _, line in name_lists.read_lines(path)]
    except HarnessError as error:
        found.add("file-unreadable", split, path, "", str(error).removeprefix(f"{path}: "))
        return []


def listed_names(path: Path, split: str, found: Findings) -> list[list[str]]:
    """The words of each line of a list of images, without lines whose first word is unusable or repeats."""
    seen: set[str] = set()
    kept: list[list[str]] = []
    for line in read_lines(path, split, found):
        words = line.split()
        if words[0].startswith("#"):
            continue
        if not is_inside(words[0]):
            found.add("entry-invalid", split, path, words[0], "the name leaves the data set's folder; correct it")
        elif words[0] in seen:
            found.add("duplicate-id", split, path, words[0], "the list has this name twice; remove one")
        else:
            seen.add(words[0])
            kept.append(words)
    return kept


def is_inside(name: str) -> bool:
    """Whether a file name of an annotation stays inside the folder it is relative to."""
    path = PurePosixPath(name)
    return bool(path.name) and not path.is_absolute() and ".." not in path.parts and not {"\0", "\\"} & set(name)
