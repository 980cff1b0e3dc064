"""What produced a number: versions, commit and hardware. No host name, no user name, no path."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path, PurePosixPath

PACKAGES = ("torch", "torchvision", "timm", "open-clip-torch", "accelerate", "numpy", "pillow", "pycocotools", "numba")

_OUTSIDE = r"(?:file:/*|/|~|\.\./)"  # how a path outside the current folder begins
# A word that is one, with --option= or key= before it or not; and one inside a value, such as {weights: /data/a.pth}.
_WHOLE = re.compile(rf"(-\w|(?:[^\s=]*=)*)({_OUTSIDE}.*)", re.DOTALL)
_INSIDE = re.compile(rf"(?<!http:)(?<!https:)(?<=[\s=:,{{\[('\"])({_OUTSIDE}[^,\]}}'\"\n]*)")


def version() -> str:
    """The installed version of this package."""
    try:
        return metadata.version("placeholder-harness")
    except metadata.PackageNotFoundError:
        return "unknown"


def packages() -> dict[str, str]:
    """Installed versions of the packages that numbers may depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> tuple[str | None, bool | None]:
    """Commit of the checkout that the code runs from and whether it has changes; (None, None) for a wheel."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists() or not (root / "pyproject.toml").exists():
        return None, None
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        # Only the code counts: a board that has just been written does not make the commit dirty.
        status = ["git", "status", "--porcelain", "--", "harness", "datasets", "pyproject.toml"]
        changes = subprocess.run(status, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return head.stdout.strip(), bool(changes.stdout.strip())


def hardware() -> str:
    """Processor model (and GPU, where torch is loaded and sees one)."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def command(words: Iterable[str]) -> str:
    """The command line as one would type it; paths outside the current folder are shortened to their last part.

    Args:
        words: What followed the program's name, whatever started it: the command, or ``python -m harness``.
    """
    return " ".join(["harness", *map(_shortened, words)])


def _shortened(word: str) -> str:
    if whole := _WHOLE.fullmatch(word):
        return whole[1] + _last_part(whole[2])
    return _INSIDE.sub(lambda match: _last_part(match[1]), word)


def _last_part(path: str) -> str:
    last = PurePosixPath(path.removeprefix("file:")).name
    return "~" if last.startswith("~") else last  # ~name is a user's
