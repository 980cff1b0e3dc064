"""Where local weights lie and what identifies them: their bytes, not their path. Light: no torch."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from harness.documents import expand_path
from harness.errors import HarnessError

LOCAL_DIR = "local-dir:"
CLIP_CONFIG = "open_clip_config.json"
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")

_FIELD = "model.backbone.weights"
_PUBLISHED = re.compile(
    rf"[^/\\\x00-\x1f\x7f]*({'|'.join(map(re.escape, SUFFIXES))}) sha256:(?P<digest>[0-9a-f]{{64}})"
)


@dataclass(frozen=True)
class WeightFiles:
    """Local weights.

    Attributes:
        file: The weights themselves.
        config: open_clip's description of the model beside them, if there is one.
    """

    file: Path
    config: Path | None


def find_weights(text: str, field: str = _FIELD) -> WeightFiles:
    """The files that a submission names as weights.

    Args:
        text: A file or a folder, ``~`` and ``${NAME}`` allowed, ``local-dir:`` before it or not. A folder must hold one
            file of weights; of several formats of the same weights the safe one is taken.
        field: Where it stands, for errors.

    Raises:
        HarnessError: There is no such file, its suffix is unknown, or the folder does not hold exactly one.
    """
    path = expand_path(text.removeprefix(LOCAL_DIR), field)
    if text.startswith(LOCAL_DIR) and not path.is_dir():
        raise HarnessError(f"{field}: {path} is not a folder; {LOCAL_DIR} takes one with {CLIP_CONFIG} and weights")
    if path.is_dir():
        config = path / CLIP_CONFIG
        return WeightFiles(_only(path, field), config if config.is_file() else None)
    if not path.is_file():
        raise HarnessError(f"{field}: {path} does not exist; give a file of weights or a folder that holds one")
    if path.suffix not in SUFFIXES:
        raise HarnessError(f"{field}: {path} must end in {', '.join(SUFFIXES)}, not {path.suffix or 'nothing'!r}")
    return WeightFiles(path, None)


def weights_digest(text: str, field: str = _FIELD) -> str:
    """SHA-256 of the weights that a submission names (and of the description beside them), in hex.

    Args:
        text: As `find_weights` takes it. Or as `published` gives it, with the digest; no file is looked for then.
        field: Where it stands, for errors.

    Raises:
        HarnessError: As `find_weights`.
    """
    if (known := published_digest(text)) is not None:
        return known
    files = find_weights(text, field)
    digests = [_digest(str(path), *_version(path)) for path in (files.file, files.config) if path is not None]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def published(text: str, field: str = _FIELD) -> str:
    """How a record names local weights: by what they are, not by a path of this machine.

    Raises:
        HarnessError: As `find_weights`.
    """
    return f"{find_weights(text, field).file.name} sha256:{weights_digest(text, field)}"


def published_digest(text: str) -> str | None:
    """The digest in a text that `published` gave; None for any other text."""
    found = _PUBLISHED.fullmatch(text)
    return None if found is None else found["digest"]


def _only(folder: Path, field: str) -> Path:
    for suffix in SUFFIXES:
        found = sorted(folder.glob(f"*{suffix}"))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(path.name for path in found[:4])
            raise HarnessError(f"{field}: {folder} holds several files of weights ({names}); name one of them")
    raise HarnessError(f"{field}: {folder} holds no file that ends in {', '.join(SUFFIXES)}")


def _version(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


@lru_cache(maxsize=64)
def _digest(path: str, size: int, modified: int) -> str:
    """Hashing gigabytes takes seconds and a fingerprint is asked for often; a changed file has another size or time."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
