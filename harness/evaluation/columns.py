"""Lists of JSON entries from strangers, read column by column: type checks cost one pass, errors name their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from harness.errors import HarnessError

_SHOWN = 60  # characters of a wrong value that an error shows


def read_json(path: Path, mend: str) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        mend: What to do when it cannot be read, for the error.

    Raises:
        HarnessError: The file cannot be read or is not valid JSON (NaN and Infinity are not).
    """
    try:
        return orjson.loads(path.read_bytes())
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({error.strerror}); {mend}") from None
    except orjson.JSONDecodeError as error:
        raise HarnessError(
            f"{path}: not valid JSON ({error.msg}, line {error.lineno} column {error.colno}); it may be cut short or "
            f"hold NaN or Infinity; {mend}"
        ) from None


def column(entries: Sequence[Mapping[str, Any]], key: str, where: str) -> list[Any]:
    """The value of a required key in every entry.

    Args:
        entries: The list.
        key: The key.
        where: The list's place, for errors: ``file.json: annotations``, or ``file.json: `` for the file's top.

    Raises:
        HarnessError: An entry lacks the key.
    """
    try:
        return [entry[key] for entry in entries]
    except KeyError:
        number = next(n for n, entry in enumerate(entries) if key not in entry)
        raise HarnessError(f"{where}[{number}].{key}: this key is required and missing") from None


def integers(values: list[Any], key: str, where: str) -> NDArray[np.int64]:
    """A column of whole numbers as int64 [N]. Raises HarnessError naming the first that is none."""

    def good(value: Any) -> bool:
        return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and abs(int(value)) < 2**63

    each_type(values, key, where, (int, np.integer), "a whole number")
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError:
        raise _at(values, good, key, where, "a whole number below 2**63") from None


def numbers(values: list[Any], key: str, where: str) -> NDArray[np.float64]:
    """A column of finite numbers as float64 [N]. Raises HarnessError naming the first that is none."""
    each_type(values, key, where, (int, float, np.integer, np.floating), "a number")
    try:
        array = np.array(values, dtype=np.float64)
    except OverflowError:
        raise _at(values, lambda value: abs(value) < 1e300, key, where, "a finite number") from None
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise HarnessError(f"{where}[{bad[0]}].{key}: {array[bad[0]]} is not a finite number")
    return array


def boxes(values: list[Any], where: str) -> NDArray[np.float64]:
    """A column of boxes as float64 [N, 4]. Raises HarnessError naming the first that is not four finite numbers."""

    def four(box: Any) -> bool:
        return isinstance(box, (list, tuple, np.ndarray)) and len(box) == 4

    meaning = "a list of four numbers: x, y, width, height"
    if not all(map(four, values)):
        raise _at(values, four, "bbox", where, meaning)
    allowed = (int, float, np.integer, np.floating)
    kinds = {type(number) for box in values for number in box}
    if any(kind is bool or not issubclass(kind, allowed) for kind in kinds):
        raise _at(
            values,
            lambda box: all(isinstance(n, allowed) and not isinstance(n, bool) for n in box),
            "bbox",
            where,
            meaning,
        )
    try:
        array = np.array(values, dtype=np.float64).reshape(-1, 4)
    except OverflowError:
        raise _at(values, lambda box: all(abs(n) < 1e300 for n in box), "bbox", where, meaning) from None
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        raise HarnessError(f"{where}[{bad[0]}].bbox: {array[bad[0]].tolist()} holds a number that is not finite")
    return array


def each_type(values: list[Any], key: str, where: str, allowed: tuple[type, ...], meaning: str) -> None:
    """Raise HarnessError naming the first value of a column that is of none of the allowed types (bool is never)."""
    if any(kind is bool or not issubclass(kind, allowed) for kind in set(map(type, values))):
        raise _at(values, lambda v: isinstance(v, allowed) and not isinstance(v, bool), key, where, meaning)


def _at(values: list[Any], good: Callable[[Any], bool], key: str, where: str, meaning: str) -> HarnessError:
    """The error that names the first value that is not good."""
    number, value = next((n, v) for n, v in enumerate(values) if not good(v))
    return HarnessError(f"{where}[{number}].{key}: {show(value)} is not {meaning}")


def show(value: Any) -> str:
    """A value as an error shows it: at most 60 characters."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
