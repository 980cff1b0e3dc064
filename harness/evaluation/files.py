"""What strangers name as a file must be one: reading a pipe that nobody writes into would never end."""

from __future__ import annotations

import stat
from pathlib import Path

from harness.errors import HarnessError


def require_file(path: Path) -> None:
    """Refuse pipes, sockets and devices. What is missing, or is a folder, is left to the reader, which says so.

    Raises:
        HarnessError: The path is none of these, nor a file.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise HarnessError(f"{path}: is a pipe or a device, not a file; write its content into a file, and name that")
