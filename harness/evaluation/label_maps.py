"""Segmentation predictions as PNGs of label ids, in a folder or a ZIP, with Cityscapes names.

The prediction of frame ``city_seq_frame`` is the one file whose name starts with that and ends in ``.png``, in any
subfolder (cityscapesScripts, evalPixelLevelSemanticLabeling.py, getPrediction).
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from harness.atomic import write_bytes
from harness.errors import HarnessError
from harness.evaluation.array_files import DAMAGED
from harness.evaluation.files import require_file

_MAX_FILE_BYTES = 256 << 20
_MAX_FILES = 1_000_000
_MAX_PIXELS = 1 << 27


class LabelMaps:
    """The label maps of a set of frames.

    Args:
        source: Folder, or ZIP file; a ZIP is read in place, nothing is unpacked.
        ids: The frames that must each have exactly one file.
        known: All frames of the data set; a PNG that belongs to none of them is refused.
        ending: End of the file names, after the frame and anything else.
    """

    def __init__(self, source: Path, ids: Collection[str], known: Iterable[str], ending: str = ".png") -> None:
        self.source = source
        self._archive: zipfile.ZipFile | None = None
        if source.is_dir():
            names = _walk(source, ending)
        elif source.is_file():
            self._archive = _open_archive(source)
            names = _members(source, self._archive, ending)
        else:
            raise HarnessError(f"{source}: no such folder or ZIP file of label maps")
        self._name_of = self._assign(names, set(known) | set(ids))
        missing = [i for i in ids if i not in self._name_of]
        if missing:
            raise HarnessError(
                f"{source}: {len(missing)} of {len(ids)} frames have no label map; the first is {missing[0]!r}, whose "
                f"file must be named {missing[0]}*{ending}"
            )

    def _assign(self, names: list[str], known: set[str]) -> dict[str, str]:
        lengths = sorted({len(frame) for frame in known}, reverse=True)
        found: dict[str, str] = {}
        for name in names:
            base = PurePosixPath(name).name
            # The longest match, and no digit after it: frame_1 does not claim frame_10.png.
            matches = (base[:n] for n in lengths if base[:n] in known and not base[n : n + 1].isdigit())
            frame = next(matches, None)
            if frame is None:
                raise HarnessError(
                    f"{self.source}: {name}: does not start with the name of a frame of the data set; remove it"
                )
            if frame in found:
                raise HarnessError(
                    f"{self.source}: {name}: a second label map of {frame!r} beside {found[frame]}; leave one"
                )
            found[frame] = name
        return found

    def path(self, frame: str) -> str:
        """The file of a frame, for errors."""
        return f"{self.source}{':' if self._archive else os.sep}{self._name_of[frame]}"

    def read(self, frame: str, shape: tuple[int, ...] | None = None) -> NDArray[np.uint8]:
        """Decode one label map.

        Args:
            frame: Its id.
            shape: Height and width that it must have; checked before decoding.

        Returns:
            uint8 [H, W], label ids.

        Raises:
            HarnessError: The file is not an 8-bit single-channel PNG, or has another size.
        """
        name = self._name_of[frame]
        if self._archive is None:
            return _decode(self.source / name, self.path(frame), shape)
        try:
            with self._archive.open(name) as member:
                data = member.read(_MAX_FILE_BYTES + 1)
        except (*DAMAGED, OSError) as error:
            raise HarnessError(f"{self.path(frame)}: cannot be unpacked ({error}); make the ZIP again") from None
        if len(data) > _MAX_FILE_BYTES:
            raise HarnessError(f"{self.path(frame)}: unpacks to more than {_MAX_FILE_BYTES >> 20} MiB; refused")
        return _decode(io.BytesIO(data), self.path(frame), shape)


TRUTH_ENDING = "_gtFine_labelIds.png"


def find_truth(source: Path | Sequence[Path]) -> dict[str, Path]:
    """The ground truth's label maps by frame: ``<frame>_gtFine_labelIds.png``.

    Args:
        source: Folder that holds them in any subfolders, or a list of the files.

    Raises:
        HarnessError: There is none, a file is named otherwise, or a frame has two.
    """
    if isinstance(source, Path):
        if not source.is_dir():
            raise HarnessError(f"{source}: no such folder of label maps")
        files = [source / name for name in _walk(source, TRUTH_ENDING)]
    else:
        files = list(source)
    found: dict[str, Path] = {}
    for path in files:
        frame = path.name.removesuffix(TRUTH_ENDING)
        if frame == path.name:
            raise HarnessError(f"{path}: the name of a label map ends in {TRUTH_ENDING}")
        if frame in found:
            raise HarnessError(f"{path}: a second label map of {frame!r} beside {found[frame]}; leave one")
        found[frame] = path
    if not found:
        where = source if isinstance(source, Path) else "ground truth"
        raise HarnessError(f"{where}: has no file whose name ends in {TRUTH_ENDING}")
    return found


def read_png(path: Path, modes: tuple[str, ...], shape: tuple[int, ...] | None = None) -> NDArray[Any]:
    """Decode one single-channel PNG of one of the given Pillow modes. Raises HarnessError naming the file."""
    return _decode(path, str(path), shape, modes)


def write_segmentation(folder: Path | str, frame: str, label_ids: NDArray[np.uint8]) -> None:
    """Write one frame's prediction as ``<frame>.png``.

    Args:
        folder: Where to.
        frame: ``city_seq_frame``.
        label_ids: uint8 [H, W], label ids (not train ids).
    """
    array = np.asarray(label_ids)
    if array.ndim != 2 or array.dtype != np.uint8:
        raise HarnessError(
            f"{folder}: {frame}: label ids have shape {list(array.shape)} and dtype {array.dtype} where uint8 [H, W] "
            "is required"
        )
    if not frame or PurePosixPath(frame).name != frame or "\\" in frame or "\0" in frame or frame.startswith("."):
        raise HarnessError(f"{folder}: {frame!r} cannot be a file name")
    buffer = io.BytesIO()
    # Fast compression: label maps are mostly runs, which level 1 packs nearly as well as level 6.
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, format="PNG", compress_level=1)
    write_bytes(Path(folder) / f"{frame}.png", buffer.getvalue())


def _walk(folder: Path, ending: str) -> list[str]:
    names = []
    for root, folders, files in os.walk(folder):  # does not follow links to folders
        folders.sort()
        relative = Path(root).relative_to(folder)
        names += [(relative / f).as_posix() for f in sorted(files) if f.endswith(ending) and not f.startswith(".")]
    return names


def _open_archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (*DAMAGED, OSError) as error:
        raise HarnessError(f"{path}: not a folder and not a valid ZIP file ({error})") from None


def _members(path: Path, archive: zipfile.ZipFile, ending: str) -> list[str]:
    infos = archive.infolist()
    if len(infos) > _MAX_FILES:
        raise HarnessError(f"{path}: {len(infos):,} files in the ZIP; at most {_MAX_FILES:,} are accepted")
    names = []
    for info in infos:
        name = info.filename
        parts = PurePosixPath(name).parts
        if name.startswith(("/", "\\")) or ".." in parts or "\\" in name or ":" in name.partition("/")[0]:
            raise HarnessError(f"{path}: {name!r}: a path that leaves the ZIP; make it again from inside the folder")
        if not parts or info.is_dir() or not name.endswith(ending) or parts[-1].startswith(".") or "__MACOSX" in parts:
            continue
        if info.flag_bits & 1:
            raise HarnessError(f"{path}: {name!r}: is encrypted; make the ZIP without a password")
        if info.file_size > _MAX_FILE_BYTES:
            raise HarnessError(f"{path}: {name!r}: unpacks to {info.file_size >> 20:,} MiB; refused")
        names.append(name)
    return sorted(names)


def _decode(
    source: Path | io.BytesIO, name: str, shape: tuple[int, ...] | None, modes: tuple[str, ...] = ("L", "P")
) -> NDArray[Any]:
    if isinstance(source, Path):
        require_file(source)
    try:
        with Image.open(source, formats=("PNG",)) as image:
            if image.mode not in modes:
                raise HarnessError(
                    f"{name}: PNG of mode {image.mode} where {' or '.join(modes)} is required; label ids are one 8-bit "
                    "channel, instance ids one 16-bit channel"
                )
            if shape is not None and (image.height, image.width) != tuple(shape):
                raise HarnessError(
                    f"{name}: {image.width} x {image.height} pixels where the ground truth has "
                    f"{shape[1]} x {shape[0]}; resize predictions to the original size (nearest neighbour)"
                )
            if image.width * image.height > _MAX_PIXELS:
                raise HarnessError(f"{name}: {image.width} x {image.height} pixels; refused")
            return np.asarray(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, LookupError, EOFError, struct.error) as error:
        text = "is not a PNG" if isinstance(error, UnidentifiedImageError) else f"cannot be decoded ({error})"
        raise HarnessError(f"{name}: {text}; write it again") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise HarnessError(f"{name}: {error}; refused") from None
