"""Names of entries: which ones a board can hold beside each other."""

from __future__ import annotations

from pathlib import Path

from harness.errors import HarnessError


def check_name(board: Path, name: str) -> None:
    """See to it that no other entry's name differs from one in upper and lower case only.

    They would be one folder on some file systems, and are one name to readers.

    Args:
        board: The board's folder.
        name: Of an entry that is to be stored; one that is there already is not looked at.

    Raises:
        HarnessError: There is such an entry.
    """
    try:
        taken = [path.name for path in (board / "records").iterdir()]
    except OSError:  # there is none yet; why it cannot be read is told where it is read
        return
    other = next((one for one in taken if one.casefold() == name.casefold()), None)
    if other is not None and name not in taken:
        raise HarnessError(
            f"{board / 'records'}: name: {name!r} differs from {other!r}, which is there, in upper and lower case "
            "only; choose another name"
        )
