from __future__ import annotations

import json
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.evaluation.detection_predictions import read_detections
from harness.evaluation.json_kernels import parse

MANY = settings(max_examples=300, deadline=None, derandomize=True)


def text(*scores: str, rest: str = '"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4]') -> bytes:
    return ("[" + ",\n".join(f'{{{rest}, "score": {score}}}' for score in scores) + "]").encode()


def parsed(score: str) -> float | None:
    columns = parse(text(score))
    return None if columns is None else float(columns[3][0])


def half_way(mantissa: int, places: int) -> str:
    """The decimal half way between two neighbouring float64 numbers, of which there is a short one up to 2^53."""
    value = Fraction(2 * mantissa + 1, 2 * 2**places)
    digits = value * 10 ** (places + 1)
    assert digits.denominator == 1
    return f"{digits.numerator}e-{places + 1}"


@MANY
@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e280, max_value=1e280))
@example(53.270145416259766)
@example(366.26031494140625)
@example(5e-324)
@example(2.2250738585072014e-308)
def test_every_float_that_python_writes_comes_back_bit_for_bit(value: float) -> None:
    found = parsed(repr(value))
    if abs(value) > 1e-250 or value == 0:
        assert found is not None
    if found is not None:
        assert struct.pack("d", found) == struct.pack("d", value)


@MANY
@given(st.integers(0, 10**19 - 1), st.integers(-290, 270))
@example(9007199254740993, 0)
@example(9007199254740993, -3)
@example(90071992547409935, -1)
def test_decimals_of_nineteen_digits_are_rounded_as_python_rounds_them(digits: int, exponent: int) -> None:
    assert parsed(f"{digits}e{exponent}") == float(f"{digits}e{exponent}")
    if exponent < 0:
        shifted = str(digits).rjust(20, "0")
        point = f"{int(shifted[:6])}.{shifted[6:]}"
        assert parsed(point) in (float(point), None)


@MANY
@given(st.integers(2**52, 2**53 - 2), st.sampled_from([0, 1, 2, 3]))
def test_half_way_between_two_floats_is_rounded_to_the_even_one(mantissa: int, places: int) -> None:
    written = half_way(mantissa, places)
    found = parsed(written)
    assert found in (float(written), None)  # more than 19 digits are left to the careful reader
    assert found is not None or len(written.split("e")[0]) > 18


ROW = {"image_id": 1, "category_id": 2, "bbox": [1.5, 2, 3e0, 4.25], "score": 0.5}


@pytest.mark.parametrize(
    "extra",
    [
        {"segmentation": [[1.5, 2, 3], [4]], "id": 7},
        {"segmentation": {"size": [3, 4], "counts": 'a"\\b]}'}, "note": None, "ok": True},
        {"é": "ü", "area": -1.5e-3, "deep": [[[{"a": [{}]}]]], "empty": "", "list": []},
    ],
)
def test_other_keys_are_skipped_and_the_columns_are_those_of_a_json_library(extra: dict[str, Any]) -> None:
    rows = [ROW, {**extra, **ROW, "score": 1}, {**ROW, **extra, "image_id": -5}]
    for content in (orjson.dumps(rows), json.dumps(rows, indent=1).encode(), orjson.dumps(rows) + b"\n \t\r"):
        columns = parse(content)
        assert columns is not None
        assert columns[0].tolist() == [1, 1, -5]
        assert columns[1].tolist() == [2, 2, 2]
        assert columns[2].tolist() == [[1.5, 2, 3, 4.25]] * 3
        assert columns[3].tolist() == [0.5, 1, 0.5]
    assert parse(b" [ ] ") is not None


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[", b"{}", b"[{}]", b"[1]", b"[]x", text("0.5")[:-1], text("0.5") + b"]", text("0.5", "0.5")[:-9],
        text("NaN"), text("Infinity"), text("-Infinity"), text("1e400"), text("null"), text('"0.5"'), text("true"),
        text("01"), text("1."), text(".5"), text("1e"), text("+1"), text("-"), text("0x1"), text("1_0"), text(""),
        text("0.5, "), text("0.5,,"), text("0.12345678901234567890123"), text("1 2"), text("0.5]"),
        text("0.5", rest='"image_id": 1.0, "category_id": 2, "bbox": [1, 2, 3, 4]'),
        text("0.5", rest='"image_id": 18446744073709551617, "category_id": 2, "bbox": [1, 2, 3, 4]'),
        text("0.5", rest='"image_id": 1, "category_id": 2, "bbox": [1, 2, 3]'),
        text("0.5", rest='"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4, 5]'),
        text("0.5", rest='"image_id": 1, "image_id": 3, "category_id": 2, "bbox": [1, 2, 3, 4]'),
        text("0.5", rest='"image_id": 1, "bbox": [1, 2, 3, 4]'),
        text("0.5", rest='"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "x": [}'),
        text("0.5", rest='"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "x": "\n"'),
        text("0.5", rest='"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "x": ' + "[" * 100 + "]" * 100),
        text("0.5", rest='"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "x": '),
        b"\xef\xbb\xbf" + text("0.5"), b"\xff\xfe", text("0.5").replace(b'"bbox"', b'"bb\\u006fx"'),
    ],
)  # fmt: skip
def test_anything_unusual_is_left_to_the_careful_reader(content: bytes) -> None:
    assert parse(content) is None


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_damaged_file_is_never_read_as_something_else(data: Any) -> None:
    whole = bytearray(orjson.dumps([ROW, {**ROW, "segmentation": {"counts": "a]", "size": [1]}}]))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place] = data.draw(st.sampled_from(b'0123456789[]{}",:.eE+- \\x\x00\xff'))
    columns = parse(bytes(whole))
    if columns is not None:
        try:
            rows = orjson.loads(bytes(whole))
        except orjson.JSONDecodeError:  # damage inside a skipped value, which is not looked into
            return
        assert columns[3].tolist() == [row["score"] for row in rows]
        assert columns[2].tolist() == [row["bbox"] for row in rows]
        assert columns[0].tolist() == [row["image_id"] for row in rows]


def large(tmp_path: Path, *last: dict[str, Any]) -> Path:
    """A results file that is large enough for the compiled reader."""
    rows = [{**ROW, "image_id": n % 7 + 1, "score": n / 20_000} for n in range(20_000)]
    path = tmp_path / "results.json"
    path.write_bytes(orjson.dumps([*rows, *last]))
    assert path.stat().st_size > 1 << 20
    return path


def test_a_large_file_gives_the_same_columns_as_the_same_entries_in_memory(tmp_path: Path) -> None:
    path = large(tmp_path)
    sizes = dict.fromkeys(range(1, 8))
    fast, careful = (read_detections(source, sizes, [2]) for source in (path, orjson.loads(path.read_bytes())))
    for name in ("image_ids", "category_ids", "boxes", "scores"):
        assert np.array_equal(getattr(fast, name), getattr(careful, name))
        assert getattr(fast, name).dtype == getattr(careful, name).dtype


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"score": None}, r"\[20000\].score: None is not a number"),
        ({"image_id": 9}, r"\[20000\].image_id: 9 is not an image of the ground truth"),
        ({"category_id": 1.0}, r"\[20000\].category_id: 1.0 is not a whole number"),
        ({"bbox": [1, 2, -3, 4]}, r"\[20000\].bbox: .* negative side"),
        ({"bbox": [1, 2, 1e200, 4]}, r"\[20000\].bbox: .* beyond 1e\+100"),
    ],
)
def test_a_fault_in_a_large_file_is_named_as_in_a_small_one(tmp_path: Path, change: Any, words: str) -> None:
    with pytest.raises(HarnessError, match=words):
        read_detections(large(tmp_path, {**ROW, **change}), dict.fromkeys(range(1, 8)), [2])


def test_a_large_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = large(tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(HarnessError, match="it may be cut short"):
        read_detections(path, dict.fromkeys(range(1, 8)), [2])


def test_the_shortest_possible_entries_fit_and_a_file_of_opening_brackets_costs_nothing() -> None:
    entry = b'{"image_id":1,"category_id":2,"bbox":[0,0,1,1],"score":3}'
    columns = parse(b"[" + b",".join([entry] * 1000) + b"]")
    assert columns is not None
    assert len(columns[0]) == 1000
    assert parse(b"{" * 10_000_000) is None
    assert parse(b"[" + b"{" * 10_000_000) is None
