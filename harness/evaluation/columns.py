"""Lists of JSON entries from strangers, read column by column: type checks cost one pass, errors name their place."""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.evaluation.files import require_file

LARGEST = 1e100  # the largest coordinate of a box: areas stay finite
Kind = TypeVar("Kind")
Id = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]  # of a typed entry; larger ones are left to the careful reader
_SHOWN = 60  # characters of a wrong value that an error shows


def read_json(path: Path, mend: str) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        mend: What to do when it cannot be read, for the error.

    Raises:
        HarnessError: The file cannot be read or is not valid JSON (NaN and Infinity are not).
    """
    require_file(path)
    try:
        with collector_paused():
            return orjson.loads(path.read_bytes())
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({error.strerror}); {mend}") from None
    except orjson.JSONDecodeError as error:
        raise HarnessError(
            f"{path}: not valid JSON ({error.msg}, line {error.lineno} column {error.colno}); it may be cut short or "
            f"hold NaN or Infinity; {mend}"
        ) from None


def read_typed(path: Path, kind: type[Kind]) -> Kind | None:
    """Read a plain JSON file straight into typed entries; keys that the type lacks are skipped.

    Args:
        path: The file.
        kind: The type.

    Returns:
        None where the file cannot be read so: `read_json` then finds the words for what is wrong with it.

    Raises:
        HarnessError: It is a pipe or a device.
    """
    require_file(path)
    try:
        with collector_paused():
            return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
        return None


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep Python's cycle collector from running: among millions of new dicts and lists it runs often, and in vain."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def mappings(entries: Sequence[Any]) -> bool:
    """Whether all entries are mappings; each type is asked once."""
    return all(issubclass(kind, Mapping) for kind in set(map(type, entries)))


def entries_of(source: Path | str | Sequence[Mapping[str, Any]]) -> tuple[Sequence[Mapping[str, Any]], str]:
    """The list of dicts in a results file (or given), and its place for errors.

    Raises:
        HarnessError: The file cannot be read, or holds anything else.
    """
    where = f"{source}: " if isinstance(source, (str, Path)) else "results: "
    entries = read_json(Path(source), "write the results again") if isinstance(source, (str, Path)) else source
    if not isinstance(entries, (list, tuple)):
        raise HarnessError(f"{where}a list of results is required, found {type(entries).__name__}")
    if not mappings(entries):
        number, entry = next((n, entry) for n, entry in enumerate(entries) if not isinstance(entry, Mapping))
        raise HarnessError(f"{where}[{number}]: {show(entry)} is not a mapping of keys to values")
    return entries, where


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
        return list(map(itemgetter(key), entries))
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


def unique_ids(entries: Sequence[Mapping[str, Any]], key: str, where: str) -> NDArray[np.int64]:
    """A required column of different whole numbers, int64 [N]. Raises HarnessError naming the first that repeats."""
    return distinct(integers(column(entries, key, where), key, where), key, where)


def distinct(ids: NDArray[np.int64], key: str, where: str, mend: str = "") -> NDArray[np.int64]:
    """Ids that are all different. Raises HarnessError naming the place of the first that repeats."""
    ordered = np.sort(ids)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        raise HarnessError(f"{where}[{np.flatnonzero(ids == twice[0])[1]}].{key}: {twice[0]} appears twice{mend}")
    return ids


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
    bad = np.flatnonzero(~(np.abs(array) <= LARGEST).all(axis=1))
    if len(bad):
        raise HarnessError(
            f"{where}[{bad[0]}].bbox: {array[bad[0]].tolist()} holds a number that is not finite, or beyond {LARGEST:g}"
        )
    return array


def known_ids(values: NDArray[np.int64], known: Collection[int], key: str, meaning: str, where: str) -> None:
    """Raise HarnessError naming the first id of a column that is not known."""
    unknown = np.flatnonzero(~np.isin(values, np.fromiter(known, np.int64, len(known))))
    if len(unknown):
        number = int(unknown[0])
        raise HarnessError(
            f"{where}[{number}].{key}: {values[number]} is not {meaning}; are these results for another data set or "
            "split?"
        )


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
