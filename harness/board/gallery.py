"""The pictures of a record: a few of the best and worst predictions, drawn when it was made.

They lie beside the record as one picture per task and ``gallery.json``, which says what is where and names each
picture's hash. They are shown, never scored: a record without them is as good.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from harness.atomic import json_bytes
from harness.board.fields import CardName, Document, Number, Sha256
from harness.board.schema import Record
from harness.documents import describe
from harness.errors import HarnessError

MANIFEST = "gallery.json"
SUFFIX = ".webp"
MAX_BYTES = 2_000_000  # of a picture or manifest
MAX_SIDE = 16_383  # that a WebP can have

Pixels = Annotated[int, Field(ge=0, le=MAX_SIDE)]
Line = tuple[Annotated[str, Field(max_length=60)], Annotated[str, Field(max_length=300)]]


class Example(Document):
    """One image with its prediction.

    Attributes:
        id: The image.
        side: Whether it is one of the best or of the worst.
        value: The headline number as if this were the only image.
        y: Where it begins in the task's picture, in pixels from its top; it is as wide as its panels.
        width: Of all panels together.
        height: Of a panel.
        lines: What else is to be read: label and text, such as a question and the answer to it.
    """

    id: Annotated[str, Field(max_length=300)]
    side: Literal["best", "worst"]
    value: Number
    y: Pixels
    width: Pixels
    height: Pixels
    lines: Annotated[list[Line], Field(max_length=12)] = []


class Sheet(Document):
    """One task's examples.

    Attributes:
        sha256: Of the picture, ``<card>.webp``.
        width: Of the picture in pixels.
        height: Of the picture in pixels.
        panels: What an example's panels show, from left to right.
        note: How the examples were chosen and what is drawn.
        examples: Best first, then worst.
    """

    sha256: Sha256
    width: Pixels
    height: Pixels
    panels: Annotated[list[Annotated[str, Field(max_length=60)]], Field(min_length=1, max_length=4)]
    note: Annotated[str, Field(max_length=500)]
    examples: Annotated[list[Example], Field(min_length=1, max_length=24)]


class Gallery(Document):
    """The manifest.

    Attributes:
        schema_version: Of this document.
        sheets: One for each task whose card allows its images to be shown.
    """

    schema_version: Literal[1] = 1
    sheets: dict[CardName, Sheet]


def gallery_files(gallery: Gallery, pictures: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files to store beside a record.

    Args:
        gallery: The manifest.
        pictures: WebP by card.

    Returns:
        Content by file name; nothing where nothing may be shown.
    """
    if not gallery.sheets:
        return {}
    files = {f"{card}{SUFFIX}": pictures[card] for card in gallery.sheets}
    return files | {MANIFEST: json_bytes(gallery.model_dump(mode="json"))}


def read_gallery(board: Path, record: Record) -> Gallery | None:
    """What a record has to show, each picture checked against its hash.

    Returns:
        None if it has nothing.

    Raises:
        HarnessError: The manifest is not valid, or a picture is missing, too large, a link, or not the one it names.
    """
    folder = board / "records" / record.id
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        gallery = Gallery.model_validate_json(_bytes(path))
    except ValidationError as error:
        raise HarnessError(describe(error, Gallery, str(path))) from None
    for card, sheet in gallery.sheets.items():
        picture = folder / f"{card}{SUFFIX}"
        if card not in record.tasks:
            raise HarnessError(f"{path}: sheets.{card}: is no task of the record; remove it")
        content = _bytes(picture)
        if hashlib.sha256(content).hexdigest() != sheet.sha256:
            raise HarnessError(f"{picture}: is not the picture that {MANIFEST} names; restore it, or remove both")
        if content[:4] != b"RIFF" or content[8:12] != b"WEBP":
            raise HarnessError(f"{picture}: is not a WebP picture; remove it and {MANIFEST}")
        for number, example in enumerate(sheet.examples):
            if example.y + example.height > sheet.height or example.width > sheet.width:
                raise HarnessError(f"{path}: sheets.{card}.examples.{number}: lies outside the picture")
    return gallery


def _bytes(path: Path) -> bytes:
    if path.is_symlink():
        raise HarnessError(f"{path}: is a link; put the file itself there")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise HarnessError(f"{path}: is larger than {MAX_BYTES:,} bytes; remove it")
        return path.read_bytes()
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({error.strerror}); restore it, or remove {MANIFEST}") from None
