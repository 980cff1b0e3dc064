"""Reading annotation files of the COCO family: JSON with lists of entries, from strangers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson
from numpy.typing import NDArray

from harness.errors import HarnessError

_KINDS: dict[type, str] = {int: "a whole number", str: "text", list: "a list", dict: "a mapping"}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file whose top is a mapping.

    Raises:
        HarnessError: The file cannot be read, is not valid JSON, or its top is something else.
    """
    try:
        document = orjson.loads(path.read_bytes())
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({error.strerror}); complete the data set") from None
    except orjson.JSONDecodeError as error:
        raise HarnessError(f"{path}: not valid JSON ({error.msg}, line {error.lineno}); fetch the file again") from None
    if not isinstance(document, dict):
        raise HarnessError(f"{path}: the top of the file must be a mapping with lists of entries")
    return document


def entries(document: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    """The list of mappings under `key`.

    Raises:
        HarnessError: The key is missing, or something in it is not a mapping.
    """
    found = document.get(key)
    if not isinstance(found, list):
        raise HarnessError(f"{path}: {key}: a list of entries is required here; is this the right file?")
    for number, entry in enumerate(found):
        if not isinstance(entry, dict):
            raise HarnessError(f"{path}: {key}[{number}]: {str(entry)[:60]!r} is not a mapping")
    return found


def field(entry: dict[str, Any], key: str, kind: type, path: Path, place: str) -> Any:
    """The value of a required key.

    Args:
        entry: The mapping.
        key: The key.
        kind: int, str, list or dict.
        path: The file, for the error.
        place: Which entry of it, for the error, e.g. ``annotations[7]``.

    Raises:
        HarnessError: The key is missing or its value is of another kind.
    """
    value = entry.get(key)
    if type(value) is kind:  # not isinstance: True is no number
        return value
    if key not in entry:
        raise HarnessError(f"{path}: {place}.{key}: this key is required and missing")
    raise HarnessError(f"{path}: {place}.{key}: {str(value)[:60]!r} is not {_KINDS[kind]}")


def unique_ids(items: list[dict[str, Any]], key: str, path: Path, where: str) -> NDArray[np.int64]:
    """The ids of a list of entries.

    Args:
        items: The entries.
        key: Key of the id.
        path: The file, for the error.
        where: Name of the list, for the error.

    Returns:
        int64 [N], in the file's order.

    Raises:
        HarnessError: An id is missing, negative, too large, or appears twice.
    """
    ids = [cast(int, field(item, key, int, path, f"{where}[{number}]")) for number, item in enumerate(items)]
    seen: set[int] = set()
    for number, value in enumerate(ids):
        if not 0 <= value < 2**63:
            raise HarnessError(f"{path}: {where}[{number}].{key}: {value} is not an id (0 to 2**63 - 1)")
        if value in seen:
            raise HarnessError(f"{path}: {where}[{number}].{key}: {value} appears twice; remove one of the entries")
        seen.add(value)
    return np.array(ids, dtype=np.int64)
