"""What produced a number: versions, commit and hardware. No host name, no user name, no path."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "torchvision", "timm", "open-clip-torch", "accelerate", "numpy", "pillow", "pycocotools", "numba")


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
