"""Text files that list the images of a split, one per line."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from harness.errors import HarnessError

MAX_BYTES = 256 << 20  # ten times what a list of ImageNet's training images takes


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file that hold something, with their numbers, counted from 1.

    Raises:
        HarnessError: The file cannot be read, is larger than 256 MiB, or is not UTF-8 text.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise HarnessError(f"{path}: is larger than {MAX_BYTES >> 20} MiB; is this the right file?")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({error.strerror}); complete the data set") from None
    except UnicodeDecodeError as error:
        raise HarnessError(f"{path}: is not UTF-8 text (byte {error.start}); is this the right file?") from None
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def read_names(path: Path, columns: int = 1) -> list[tuple[str, ...]]:
    """Read a list of images.

    Args:
        path: A text file with one image per line; blank lines and lines that begin with ``#`` are left out.
        columns: How many words, separated by blanks, each line has; the first is the image's name.

    Returns:
        The words of each line, in the file's order.

    Raises:
        HarnessError: The file cannot be read or lists nothing, a line has another number of words, or a name appears
            twice or leaves its folder.
    """
    rows: list[tuple[str, ...]] = []
    seen: dict[str, int] = {}
    for number, line in read_lines(path):
        if line.startswith("#"):
            continue
        words = tuple(line.split())
        if len(words) != columns:
            raise HarnessError(
                f"{path}: line {number}: {line[:60]!r} has {len(words)} words where {columns} are required; "
                "is this the right list?"
            )
        name = words[0]
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name or "\0" in name:
            raise HarnessError(f"{path}: line {number}: {name!r} does not stay inside the image folder; correct it")
        if name in seen:
            raise HarnessError(f"{path}: line {number}: {name!r} is in line {seen[name]} already; remove one of them")
        seen[name] = number
        rows.append(words)
    if not rows:
        raise HarnessError(f"{path}: lists no image; is this the right file?")
    return rows
