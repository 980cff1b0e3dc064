"""A reader of COCO results files that makes no Python objects, compiled by numba.

It takes the plain files that every tool writes and gives up on anything else: `harness.evaluation.predictions` then
reads the file with care, and finds the words for what is wrong with it.

Numbers come out as correctly rounded as Python's ``float``: up to 2^53 and 10^22 by one exact division (Clinger 1990,
"How to read floating point numbers accurately"), else by the algorithm of Eisel and Lemire (Lemire 2021, "Number
parsing at a gigabyte per second", section 5; Mushtak and Lemire 2023, "Fast number parsing without fallback").
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.jit import compiled

_SMALLEST, _LARGEST = -300, 300  # decimal exponents; what lies outside is left to the careful reader
_KEYS = tuple(np.frombuffer(name, np.uint8) for name in (b"image_id", b"category_id", b"bbox", b"score"))
_IMAGE, _CATEGORY, _BOX, _SCORE = range(4)
_DEEPEST = 64  # brackets within brackets in a skipped value
_SHORTEST = 57  # bytes of the shortest entry with all four keys
_U0, _U1, _U3, _U9, _U10 = np.uint64(0), np.uint64(1), np.uint64(3), np.uint64(9), np.uint64(10)
_U32, _U52, _U53, _U63 = np.uint64(32), np.uint64(52), np.uint64(53), np.uint64(63)
_LOW32, _LOW9, _LOW52 = np.uint64(0xFFFFFFFF), np.uint64(0x1FF), np.uint64((1 << 52) - 1)
_EXACT = np.uint64(1 << 53)
_FULL = np.uint64(10**18)  # another digit still fits below 2^64
_EXACT_POWERS = np.array([10.0**n for n in range(23)])


def parse(data: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]] | None:
    """Read a list of objects with ``image_id, category_id, bbox`` and ``score``.

    Args:
        data: The JSON text. Values of other keys are skipped; of these only strings and brackets are checked.

    Returns:
        int64 [N] image ids, int64 [N] category ids, float64 [N, 4] boxes, float64 [N] scores, as they stand in the
        file; None where anything is unusual, be it wrong or not.
    """
    text = np.frombuffer(data, np.uint8)
    most = len(text) // _SHORTEST + 1
    ids, kinds = np.empty(most, np.int64), np.empty(most, np.int64)
    boxes, scores = np.empty((most, 4)), np.empty(most)
    size = _parse(text, _powers_of_ten(), ids, kinds, boxes, scores)
    return None if size < 0 else (ids[:size], kinds[:size], boxes[:size], scores[:size])


@cache
def _powers_of_ten() -> NDArray[np.uint64]:
    """uint64 [601, 2]: the first 128 bits of 10^n, high and low, for n from -300 to 300.

    Rounded down; where 5^-n fits in 64 bits (n from -27 to -1) the reciprocal is rounded up, so that decimals that are
    float64 numbers, such as 366.26031494140625, come out as themselves.
    """
    rows = []
    for n in range(_SMALLEST, _LARGEST + 1):
        five = 5 ** abs(n)
        if n >= 0:
            value = five << 128 >> five.bit_length()
        else:
            value = (
                (1 << 127 + five.bit_length()) // five + 1 if n >= -27 else (1 << 512 + 2 * five.bit_length()) // five
            )
            value >>= value.bit_length() - 128
        rows.append((value >> 64, value & (1 << 64) - 1))
    return np.array(rows, np.uint64)


@compiled
def _parse(
    text: NDArray[np.uint8],
    powers: NDArray[np.uint64],
    ids: NDArray[np.int64],
    kinds: NDArray[np.int64],
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64],
) -> int:
    """Fill the columns; how many rows there are, or -1 for anything unusual."""
    at, size = _space(text, 0), 0
    if _byte(text, at) != 91:  # [
        return -1
    at = _space(text, at + 1)
    if _byte(text, at) == 93:  # ]
        return 0 if _space(text, at + 1) == len(text) else -1
    while True:
        if _byte(text, at) != 123:  # {
            return -1
        at, seen = _space(text, at + 1), 0
        while True:
            if _byte(text, at) != 34:  # "
                return -1
            end = _string(text, at)
            if end < 0:
                return -1
            key = _key(text, at + 1, end - 1)
            at = _space(text, end)
            if _byte(text, at) != 58:  # :
                return -1
            at = _space(text, at + 1)
            if key < 0:
                at = _skip(text, at)
            else:
                if (seen >> key) & 1:  # twice: the careful reader knows which one counts
                    return -1
                seen |= 1 << key
                if key == _BOX:
                    at = _box(text, at, powers, boxes[size])
                else:
                    at, value, whole, is_whole = _number(text, at, powers)
                    if key == _SCORE:
                        scores[size] = value
                    elif not is_whole:
                        return -1
                    elif key == _IMAGE:
                        ids[size] = whole
                    else:
                        kinds[size] = whole
            if at < 0:
                return -1
            at = _space(text, at)
            if _byte(text, at) != 44:  # ,
                break
            at = _space(text, at + 1)
        if _byte(text, at) != 125 or seen != 15:  # }, and all four keys
            return -1
        size += 1
        at = _space(text, at + 1)
        if _byte(text, at) != 44:
            break
        at = _space(text, at + 1)
    if _byte(text, at) != 93:
        return -1
    return size if _space(text, at + 1) == len(text) else -1


@compiled
def _byte(text: NDArray[np.uint8], at: int) -> int:
    return np.int64(text[at]) if at < len(text) else -1  # type: ignore[return-value]


@compiled
def _space(text: NDArray[np.uint8], at: int) -> int:
    """The next place that is no white space."""
    while at < len(text) and (text[at] == 32 or text[at] == 10 or text[at] == 13 or text[at] == 9):
        at += 1
    return at


@compiled
def _string(text: NDArray[np.uint8], at: int) -> int:
    """The place after a string that begins here, -1 if it does not end or holds what must be escaped."""
    at += 1
    while at < len(text):
        if text[at] == 34:
            return at + 1
        if text[at] < 32:
            return -1
        at += 2 if text[at] == 92 else 1  # a backslash and what it escapes
    return -1


@compiled
def _key(text: NDArray[np.uint8], first: int, last: int) -> int:
    """Which of the four keys this is; -1 for another; -1 also with escapes, and then the key counts as missing."""
    for n in range(4):
        key = _KEYS[n]
        if len(key) == last - first:
            same = True
            for i in range(len(key)):
                same &= text[first + i] == key[i]
            if same:
                return n
    return -1


@compiled
def _box(text: NDArray[np.uint8], at: int, powers: NDArray[np.uint64], box: NDArray[np.float64]) -> int:
    """Read four numbers in brackets; the place after them, or -1."""
    if _byte(text, at) != 91:
        return -1
    for n in range(4):
        at, box[n], _, _ = _number(text, _space(text, at + 1), powers)
        if at < 0:
            return -1
        at = _space(text, at)
        if _byte(text, at) != (44 if n < 3 else 93):
            return -1
    return at + 1


@compiled
def _skip(text: NDArray[np.uint8], at: int) -> int:
    """The place after a value of any kind, or -1."""
    open_with = np.empty(_DEEPEST, np.uint8)
    depth, begun = 0, at
    while at < len(text):
        byte = text[at]
        if byte == 34:
            at = _string(text, at)
            if at < 0:
                return -1
        elif byte == 91 or byte == 123:  # [ {
            if depth == _DEEPEST:
                return -1
            open_with[depth] = byte
            depth += 1
            at += 1
        elif depth > 0 and (byte == 93 or byte == 125):  # ] }, each two after its partner
            depth -= 1
            if byte != open_with[depth] + 2:
                return -1
            at += 1
        elif depth == 0 and (byte == 44 or byte == 125 or byte == 93):
            return at if at > begun else -1
        elif byte < 128:
            at += 1
        else:
            return -1
        if depth == 0 and (byte == 34 or byte == 93 or byte == 125):
            return at
    return -1


@compiled
def _number(text: NDArray[np.uint8], at: int, powers: NDArray[np.uint64]) -> tuple[int, float, int, bool]:
    """A JSON number: the place after it (-1 for anything else), its value, and the same as a whole number if it is."""
    bad = (-1, 0.0, 0, False)
    negative = _byte(text, at) == 45
    at += negative
    mantissa, exponent, begun = _U0, 0, at
    while 48 <= _byte(text, at) <= 57:
        if mantissa >= _FULL:
            return bad
        mantissa = mantissa * _U10 + np.uint64(text[at] - 48)
        at += 1
    if at == begun or (text[begun] == 48 and at > begun + 1):
        return bad
    whole = _byte(text, at) != 46
    if not whole:
        at += 1
        begun = at
        while 48 <= _byte(text, at) <= 57:
            if mantissa >= _FULL:
                return bad
            mantissa = mantissa * _U10 + np.uint64(text[at] - 48)
            exponent -= 1
            at += 1
        if at == begun:
            return bad
    if _byte(text, at) == 101 or _byte(text, at) == 69:  # e E
        whole = False
        at += 1
        down = _byte(text, at) == 45
        at += down or _byte(text, at) == 43
        begun, power = at, 0
        while 48 <= _byte(text, at) <= 57:
            power = min(power * 10 + _byte(text, at) - 48, 10_000)
            at += 1
        if at == begun:
            return bad
        exponent += -power if down else power
    if whole:
        if mantissa >= np.uint64(1 << 62):
            return bad
        number = -np.int64(mantissa) if negative else np.int64(mantissa)
        return at, np.float64(number), number, True  # type: ignore[return-value]
    if mantissa == _U0:
        value = 0.0
    elif mantissa <= _EXACT and -22 <= exponent <= 22:
        if exponent < 0:
            value = np.float64(mantissa) / _EXACT_POWERS[-exponent]
        else:
            value = np.float64(mantissa) * _EXACT_POWERS[exponent]
    else:
        if exponent < _SMALLEST or exponent > _LARGEST:
            return bad
        value = _rounded(mantissa, exponent, powers)
        if value < 0:
            return bad
    return at, -value if negative else value, 0, False


@compiled
def _product(a: np.uint64, b: np.uint64) -> tuple[np.uint64, np.uint64]:
    """The high and low 64 bits of a product."""
    low = (a & _LOW32) * (b & _LOW32)
    middle = (a >> _U32) * (b & _LOW32) + (low >> _U32)
    other = (a & _LOW32) * (b >> _U32) + (middle & _LOW32)
    return (a >> _U32) * (b >> _U32) + (middle >> _U32) + (other >> _U32), a * b


@compiled
def _rounded(mantissa: np.uint64, exponent: int, powers: NDArray[np.uint64]) -> float:
    """``mantissa * 10**exponent`` as the nearest float64; -1 where that is not a normal number."""
    zeros = 0
    while not mantissa >> _U63:
        mantissa <<= _U1
        zeros += 1
    row = powers[exponent - _SMALLEST]
    high, low = _product(mantissa, row[0])
    if high & _LOW9 == _LOW9:  # may carry: take the power's next 64 bits into account
        more, _ = _product(mantissa, row[1])
        low += more
        if low < more:
            high += _U1
    top = high >> _U63
    shift = top + _U9
    result = high >> shift  # 54 bits
    # floor(log2(10^exponent)) by a product that is exact in this range
    binary = ((217706 * exponent) >> 16) + 63 + 1023 - zeros + np.int64(top)
    # Half way between two floats: to the even one. Elsewhere 5^exponent is too long for that.
    if low <= _U1 and -4 <= exponent <= 23 and result & _U3 == _U1 and result << shift == high:
        result -= _U1
    result += result & _U1
    result >>= _U1
    if result >> _U53:
        result >>= _U1
        binary += 1
    if binary < 1 or binary > 2046:
        return -1.0
    bits = np.empty(1, np.uint64)
    bits[0] = np.uint64(binary) << _U52 | result & _LOW52
    return bits.view(np.float64)[0]
