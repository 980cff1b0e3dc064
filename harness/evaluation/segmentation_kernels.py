"""The loops of segmentation evaluation, compiled by numba: counting pairs of label ids."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.jit import compiled

_ONES = np.uint64(0x0101010101010101)
_EVEN = np.uint64(0x00FF00FF00FF00FF)
_FROM_64 = np.uint64(0xC0C0C0C0C0C0C0C0)
_BYTE, _PLACE = np.uint64(0xFF), np.uint64(0xFFFF)
_8, _16 = np.uint64(8), np.uint64(16)
_ROW = 72  # not 64: rows a power of two apart would crowd the same few lines of the processor's cache
_STRIDE = np.uint64(_ROW)


def count_pairs(truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often each pair of ids meets at a pixel.

    Args:
        truth: uint8 [H, W].
        prediction: uint8 [H, W].

    Returns:
        int64 [256, 256], rows truth, columns prediction.
    """
    histogram = np.zeros((256, 256), np.int64)
    first, second = np.ascontiguousarray(truth).reshape(-1), np.ascontiguousarray(prediction).reshape(-1)
    whole = len(first) // 8 * 8
    _count_words(first[:whole].view(np.uint64), second[:whole].view(np.uint64), histogram)
    np.add.at(histogram, (first[whole:], second[whole:]), 1)
    return histogram


@compiled
def _count_words(truth: NDArray[np.uint64], prediction: NDArray[np.uint64], histogram: NDArray[np.int64]) -> None:
    """Eight pixels at a time. Label maps are mostly runs: equal words of one id each are counted by one comparison.

    Other words are counted in two small tables in turn, because neighbours mostly agree and would wait for each
    other's count. Ids from 64 on are rare and go to the whole histogram.
    """
    even, odd = np.zeros(64 * _ROW, np.uint32), np.zeros(64 * _ROW, np.uint32)
    key, run = np.int64(0), 0
    last_truth, last_prediction = np.uint64(0), np.uint64(0)  # both of one id each: id 0
    for n in range(len(truth)):
        t, p = truth[n], prediction[n]
        if t == last_truth and p == last_prediction:
            run += 8
            continue
        if t == (t & _BYTE) * _ONES and p == (p & _BYTE) * _ONES:
            histogram[key >> 8, key & 255] += run
            last_truth, last_prediction = t, p
            key, run = np.int64((t & _BYTE) << _8 | (p & _BYTE)), 8
            continue
        if (t | p) & _FROM_64:
            for _ in range(8):
                histogram[np.int64(t & _BYTE), np.int64(p & _BYTE)] += 1
                t >>= _8
                p >>= _8
            continue
        low = (t & _EVEN) * _STRIDE + (p & _EVEN)  # four 16-bit places in a table: no product or sum overflows
        high = (t >> _8 & _EVEN) * _STRIDE + (p >> _8 & _EVEN)
        for _ in range(4):
            even[np.int64(low & _PLACE)] += np.uint32(1)
            odd[np.int64(high & _PLACE)] += np.uint32(1)
            low >>= _16
            high >>= _16
    histogram[key >> 8, key & 255] += run
    for t in range(64):
        for p in range(64):
            histogram[t, p] += np.int64(even[t * _ROW + p]) + np.int64(odd[t * _ROW + p])


@compiled
def count_instances(
    instances: NDArray[np.int32], prediction: NDArray[np.uint8], same_category: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Size and hits of every instance.

    Args:
        instances: int32 [M], ``1000 * label id + number``; up to 1000 means no instance. Below 66,000.
        prediction: uint8 [M].
        same_category: bool [256, 256], whether predicting the second id is a hit for the first one's category.

    Returns:
        int64 [66000, 3]: pixels, pixels predicted as the class, pixels predicted as the category.
    """
    table = np.zeros((66_000, 3), np.int64)
    for n in range(len(instances)):
        value = instances[n]
        if value > 1000:
            label = value // 1000
            table[value, 0] += 1
            if prediction[n] == label:
                table[value, 1] += 1
            if same_category[label, prediction[n]]:
                table[value, 2] += 1
    return table
