"""What a check can find: the codes, and the list that every part of the check writes into."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Code:
    """One kind of finding.

    Attributes:
        severity: Errors make training or scoring fail or wrong, warnings are suspicious, notes are for information.
        meaning: What it means, in a few words.
    """

    severity: Severity
    meaning: str


CODES: dict[str, Code] = {
    "annotation-missing": Code("error", "an image or question without its label map, XML file or answers"),
    "annotation-orphaned": Code("error", "an annotation whose image or question does not exist"),
    "answers-not-ten": Code("error", "a question without exactly ten human answers"),
    "archive-checksum": Code("error", "a downloaded archive of another size or MD5 than its publisher states"),
    "box-outside": Code("error", "a box that leaves its image by more than one pixel"),
    "category-unknown": Code("error", "a category or class folder that is not among the data set's classes"),
    "count-differs": Code("error", "another number of images, questions, objects or labels than stated"),
    "duplicate-id": Code("error", "an id or name that appears twice"),
    "entry-invalid": Code("error", "an entry of an annotation file with a missing or unusable value"),
    "file-missing": Code("error", "a file or folder that the card names and that does not exist"),
    "file-unreadable": Code("error", "an annotation file or archive that cannot be read"),
    "image-missing": Code("error", "an image that is listed and does not exist"),
    "image-truncated": Code("error", "an image or label map that ends too early"),
    "image-unreadable": Code("error", "an image that cannot be decoded"),
    "mask-size": Code("error", "a label map of another size than its image"),
    "mask-unknown-id": Code("error", "a label map with ids that the card does not list"),
    "mask-unreadable": Code("error", "a label map that cannot be decoded or does not hold one 8-bit id per pixel"),
    "size-mismatch": Code("error", "an image of another size than its annotation states"),
    "box-empty": Code("warning", "a box of no area, which is left out of training"),
    "class-without-training": Code("warning", "a class that is evaluated and never trained on"),
    "duplicate-image": Code("warning", "an image whose file equals another one's of the same split"),
    "image-unlisted": Code("warning", "an image that no annotation names"),
    "mask-empty": Code("warning", "a label map with nothing but ignored pixels"),
    "shared-image": Code("warning", "an image that is both trained on and evaluated on"),
    "exif-ignored": Code("note", "an image that its EXIF data say to turn, read as stored"),
    "left-out": Code("note", "an image without a label map, left out as the card says"),
    "same-number": Code("note", "images with the same id in two data sets and other content"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found.

    Attributes:
        code: Key of `CODES`.
        card: Name of the data set.
        split: Name of the split; empty if it is about the whole data set.
        file: The file, relative to the card's root where it lies below it.
        id: What the finding is about within the file or data set: an image, annotation or question id, or empty.
        message: One sentence with the value found and the mend.
    """

    code: str
    card: str
    split: str
    file: str
    id: str
    message: str

    @property
    def severity(self) -> Severity:
        """The severity of its code."""
        return CODES[self.code].severity

    def to_json(self) -> dict[str, str]:
        """All fields and the severity."""
        return {"severity": self.severity, **asdict(self)}


@dataclass
class Findings:
    """The findings about one data set, in the order in which they were made.

    Attributes:
        card: Name of the data set.
        root: Its folder, for short file names.
        found: The findings.
    """

    card: str
    root: Path
    found: list[Finding] = field(default_factory=list)

    def add(self, code: str, split: str, file: Path | str, item: object, message: str) -> None:
        """Add one; `item` is the id."""
        short = str(file).removeprefix(f"{self.root}{os.sep}")
        self.found.append(Finding(code, self.card, split, text(short), text(str(item)), text(message)))


def text(name: str) -> str:
    """A file's name as text that can be written: other bytes than UTF-8 become a backslash and their number."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
