"""Where local weights lie and what identifies them: their bytes, not their path. Light: no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from harness.documents import expand_path
from harness.errors import HarnessError

LOCAL_DIR = "local-dir:"
CLIP_CONFIG = "open_clip_config.json"
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")

_FIELD = "model.backbone.weights"


@dataclass(frozen=True)
class WeightFiles:
    """Local weights.

    Attributes:
        file: The weights themselves.
        config: open_clip's description of the model beside them, if there is one.
    """

    file: Path
    config: Path | None


def find_weights(text: str) -> WeightFiles:
    """The files that ``model.backbone.weights`` names.

    Args:
        text: A file or a folder, ``~`` and ``${NAME}`` allowed, ``local-dir:`` before it or not. A folder must hold one
            file of weights; of several formats of the same weights the safe one is taken.

    Raises:
        HarnessError: There is no such file, its suffix is unknown, or the folder does not hold exactly one.
    """
    path = expand_path(text.removeprefix(LOCAL_DIR), _FIELD)
    if text.startswith(LOCAL_DIR) and not path.is_dir():
        raise HarnessError(f"{_FIELD}: {path} is not a folder; {LOCAL_DIR} takes one with {CLIP_CONFIG} and weights")
    if path.is_dir():
        config = path / CLIP_CONFIG
        return WeightFiles(_only(path), config if config.is_file() else None)
    if not path.is_file():
        raise HarnessError(f"{_FIELD}: {path} does not exist; give a file of weights or a folder that holds one")
    if path.suffix not in SUFFIXES:
        raise HarnessError(f"{_FIELD}: {path} must end in {', '.join(SUFFIXES)}, not {path.suffix or 'nothing'!r}")
    return WeightFiles(path, None)


def weights_digest(text: str) -> str:
    """SHA-256 of the weights that ``model.backbone.weights`` names (and of the description beside them), in hex.

    Raises:
        HarnessError: As `find_weights`.
    """
    files = find_weights(text)
    digests = [_digest(str(path), *_version(path)) for path in (files.file, files.config) if path is not None]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _only(folder: Path) -> Path:
    for suffix in SUFFIXES:
        found = sorted(folder.glob(f"*{suffix}"))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(path.name for path in found[:4])
            raise HarnessError(f"{_FIELD}: {folder} holds several files of weights ({names}); name one of them")
    raise HarnessError(f"{_FIELD}: {folder} holds no file that ends in {', '.join(SUFFIXES)}")


def _version(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


@lru_cache(maxsize=64)
def _digest(path: str, size: int, modified: int) -> str:
    """Hashing gigabytes takes seconds and a fingerprint is asked for often; a changed file has another size or time."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
