"""Reading images and label maps from strangers' files.

EXIF orientation is applied only where a card asks for it: the annotations of COCO, Cityscapes and VQA v2 are in the
coordinates of the pixels as stored, and so are the official tools'.
"""

from __future__ import annotations

import io
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from harness.errors import HarnessError

# Named one by one because Pillow's full list holds decoders that start other programs (EPS: Ghostscript).
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
MAX_PIXELS = 100_000_000
MAX_BYTES = 1 << 30


def read_image(path: Path, upright: bool = False) -> NDArray[np.uint8]:
    """Read an image file as RGB. See `decode_image`, which also says what is raised."""
    return decode_image(read_bytes(path), str(path), upright)


def read_bytes(path: Path | str) -> bytes:
    """The content of an image file.

    Raises:
        HarnessError: The file is missing, cannot be read, or is larger than any image.
    """
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a third of the time of Path.open
            size = os.fstat(file.fileno()).st_size
            data = file.read() if size <= MAX_BYTES else b""
    except FileNotFoundError:
        raise HarnessError(f"{path}: no such image file; complete the data set or correct the card's paths") from None
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({error.strerror}); check the disk and the permissions") from None
    if size > MAX_BYTES:
        raise HarnessError(f"{path}: more than {MAX_BYTES:,} bytes are no image; remove the file")
    return data


def decode_image(data: bytes, place: str, upright: bool = False) -> NDArray[np.uint8]:
    """Decode an image as RGB.

    Grey values are repeated, palettes looked up, CMYK converted, transparency dropped, and 16-bit grey values reduced
    to their upper eight bits. Of an animation the first frame is read.

    Args:
        data: A JPEG, PNG, BMP, GIF, PPM, TIFF or WebP file.
        place: What errors call it.
        upright: Whether to turn the image as its EXIF data say; otherwise pixels stay as stored.

    Returns:
        uint8 [H, W, 3], RGB; a copy that may be written into.

    Raises:
        HarnessError: The file is truncated, not an image, of an unusable kind, or larger than 100 megapixels.
    """
    if data.startswith(b"\xff\xd8") and not upright and (fast := _decode_jpeg(data)) is not None:
        return fast
    with _opened(data, place, FORMATS) as opened:
        image = ImageOps.exif_transpose(opened) if upright else opened
        if image.mode.startswith("I"):  # 16 bits per pixel, or such values in 32 bits
            grey = (np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8)
            return np.repeat(grey[:, :, None], 3, axis=2)
        if image.mode == "F":
            raise HarnessError(
                f"{place}: floating-point pixels have no defined range; convert the image to 8 bits per channel"
            )
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")  # what Pillow asks for; it warns otherwise
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _decode_jpeg(data: bytes) -> NDArray[np.uint8] | None:
    """A JPEG as libjpeg-turbo's accurate method decodes it; None for what Pillow has to look at (damage, CMYK)."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        return simplejpeg.decode_jpeg(data, "RGB") if height * width <= MAX_PIXELS else None
    except ValueError:
        return None


def read_label_png(path: Path) -> NDArray[np.uint8]:
    """Read a label map: one class id per pixel.

    Args:
        path: A PNG of 8-bit grey values, or of palette indices (the palette is not looked up).

    Returns:
        uint8 [H, W], ids as stored; a copy that may be written into.

    Raises:
        HarnessError: The file is missing, truncated, not a PNG, or does not hold one 8-bit id per pixel.
    """
    with _opened(read_bytes(path), str(path), ("PNG",)) as image:
        if image.mode not in ("L", "P"):
            raise HarnessError(
                f"{path}: pixel mode {image.mode!r} is not a label map; save one 8-bit class id per pixel"
            )
        return np.array(image)


@contextmanager
def _opened(data: bytes, path: str, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                raise HarnessError(
                    f"{path}: {image.width} x {image.height} pixels are more than {MAX_PIXELS:,}; scale the image down"
                )
            image.load()
            yield image
    except HarnessError:
        raise
    except UnidentifiedImageError:
        raise HarnessError(f"{path}: not an image in {' or '.join(formats)} format; fetch the file again") from None
    except Image.DecompressionBombError:
        raise HarnessError(f"{path}: more than {MAX_PIXELS:,} pixels; scale the image down") from None
    except Exception as error:  # decoders raise nearly every kind of exception on broken bytes
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise HarnessError(f"{path}: cannot be decoded ({problem}); fetch the file again") from None


def require_images(folder: Path, names: Iterable[str], source: str) -> None:
    """Check that every image file is there, with one look into each folder instead of one per file.

    Args:
        folder: Folder of the images.
        names: Paths of the images relative to it, with ``/``.
        source: Which file names them, for the error.

    Raises:
        HarnessError: A name leaves the folder, or its file is missing.
    """
    wanted: defaultdict[PurePosixPath, list[str]] = defaultdict(list)
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name or not path.name:
            raise HarnessError(f"{source}: image file name {name!r} does not stay inside {folder}; correct it")
        wanted[path.parent].append(path.name)
    for parent, files in wanted.items():
        try:
            present = {entry.name for entry in os.scandir(folder / parent)}
        except OSError:
            present = set()
        missing = [name for name in files if name not in present]
        if missing:
            more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
            raise HarnessError(
                f"{source}: image {folder / parent / missing[0]}{more} is missing; complete the data set"
            )


def walk_images(folder: Path, extensions: tuple[str, ...] = EXTENSIONS) -> list[str]:
    """Image files below a folder.

    Args:
        folder: Where to look.
        extensions: Endings in lower case.

    Returns:
        Their paths relative to `folder`, with ``/``, sorted; hidden files are left out.
    """
    found: list[str] = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        prefix = Path(parent).relative_to(folder).as_posix()
        prefix = "" if prefix == "." else prefix + "/"
        found += [prefix + f for f in files if f.lower().endswith(extensions) and not f.startswith(".")]
    return sorted(found)
