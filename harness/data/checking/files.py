"""Facts about one image file: what the check reads from it, whatever any card says about it."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image, UnidentifiedImageError

from harness.data.images import FORMATS, MAX_BYTES, MAX_PIXELS

Kind = Literal["image", "label", "archive"]
ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 turn by 90 degrees
_ZEROS = b"\0" * 64
_JPEG_END = b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class Facts:
    """What one file is.

    Attributes:
        kind: What it was read as.
        size: Bytes, of the shard for a file in one.
        mtime_ns: When the file or shard was last changed.
        digest: SHA-256 of the file in hex (MD5 of an archive), empty if it could not be read.
        width: Pixels as stored, 0 if it could not be decoded.
        height: Likewise.
        orientation: EXIF orientation, 1 to 8.
        ids: Label maps: the ids in it, ascending.
        problem: Empty, ``truncated`` or ``unreadable``.
        detail: What the decoder said about the problem.
    """

    kind: Kind
    size: int
    mtime_ns: int
    digest: str
    width: int = 0
    height: int = 0
    orientation: int = 1
    ids: tuple[int, ...] = ()
    problem: str = ""
    detail: str = ""


class Job(NamedTuple):
    """One file to read.

    Attributes:
        path: The file, or the tar shard that holds it.
        kind: What to read it as.
        member: Its name in the shard; empty for a file of its own.
        offset: Where it begins in the shard.
        length: Its bytes in the shard.
    """

    path: Path
    kind: Kind
    member: str = ""
    offset: int = 0
    length: int = 0


def read_facts(job: Job) -> Facts:
    """Read and decode one file in full. Never raises for what is in the file."""
    kind = job.kind
    try:
        with job.path.open("rb") as file:
            status = os.fstat(file.fileno())
            file.seek(job.offset)
            data = file.read(min(job.length, MAX_BYTES) if job.member else MAX_BYTES)
    except OSError as error:
        return Facts(kind, -1, -1, "", problem="unreadable", detail=error.strerror or type(error).__name__)
    common = (kind, status.st_size, status.st_mtime_ns, hashlib.sha256(data).hexdigest())
    if not data:
        return Facts(*common, problem="truncated", detail="the file is empty")
    if len(data) >= MAX_BYTES:
        return Facts(*common, problem="unreadable", detail=f"more than {MAX_BYTES:,} bytes are no image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decoders warn about oddities that they can handle
            with Image.open(io.BytesIO(data), formats=FORMATS if kind == "image" else ("PNG",)) as image:
                return _decode(image, data, common)
    except Exception as error:  # decoders raise nearly every kind of exception on broken bytes
        return _broken(error, common)


def _decode(image: Image.Image, data: bytes, common: tuple[Kind, int, int, str]) -> Facts:
    if image.width * image.height > MAX_PIXELS:
        return Facts(*common, problem="unreadable", detail=f"more than {MAX_PIXELS:,} pixels")
    image.load()
    ids: tuple[int, ...] = ()
    if common[0] == "label":
        if image.mode not in ("L", "P"):
            return Facts(*common, problem="unreadable", detail=f"pixel mode {image.mode} is not one 8-bit id per pixel")
        ids = tuple(number for number, count in enumerate(image.histogram()) if count)
    elif image.mode == "F":
        return Facts(*common, problem="unreadable", detail="floating-point pixels have no defined range")
    elif image.format == "JPEG" and _ends_in_zeros(data):
        return Facts(*common, problem="truncated", detail="the file ends in zeros instead of image data")
    return Facts(*common, width=image.width, height=image.height, orientation=_orientation(image), ids=ids)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # broken EXIF data do not keep the image from being used
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _ends_in_zeros(data: bytes) -> bool:
    """Whether a JPEG's end was never written, as by a broken download: decoders fill in grey and do not complain."""
    return data.endswith(_ZEROS) and not data.rstrip(b"\0").endswith(_JPEG_END)


def _broken(error: Exception, common: tuple[Kind, int, int, str]) -> Facts:
    text = (str(error).splitlines() or [""])[0]
    if isinstance(error, UnidentifiedImageError):  # its text would be an object's address
        text = "not an image in a known format" if common[0] == "image" else "not a PNG"
    elif isinstance(error, Image.DecompressionBombError):
        text = f"more than {MAX_PIXELS:,} pixels"
    truncated = "truncated" in text.lower() or "EOF" in text
    return Facts(*common, problem="truncated" if truncated else "unreadable", detail=text or type(error).__name__)
