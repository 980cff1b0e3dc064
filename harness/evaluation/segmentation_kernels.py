"""The loops of segmentation evaluation, compiled by numba: counting pairs of label ids."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.jit import compiled

_ONES = np.uint64(0x0101010101010101)
_BYTE, _HIGH = np.uint64(0xFF), np.uint64(0xFF00)
_EIGHT, _SIXTEEN = np.uint64(8), np.uint64(16)


def count_pairs(truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often each pair of ids meets at a pixel.

    Args:
        truth: uint8 [H, W].
        prediction: uint8 [H, W].

    Returns:
        int64 [256, 256], rows truth, columns prediction.
    """
    histogram = np.zeros(256 * 256, np.int64)
    first, second = np.ascontiguousarray(truth).reshape(-1), np.ascontiguousarray(prediction).reshape(-1)
    whole = len(first) // 8 * 8
    _count_words(first[:whole].view(np.uint64), second[:whole].view(np.uint64), histogram)
    np.add.at(histogram, first[whole:].astype(np.intp) * 256 + second[whole:], 1)
    return histogram.reshape(256, 256)


@compiled
def _count_words(truth: NDArray[np.uint64], prediction: NDArray[np.uint64], histogram: NDArray[np.int64]) -> None:
    """Eight pixels at a time. Label maps are mostly runs: equal words of one id each are counted by one comparison."""
    second = np.zeros_like(histogram)
    key, run = np.int64(0), 0
    last_truth, last_prediction = np.uint64(0), np.uint64(0)  # both of one id each: id 0
    for n in range(len(truth)):
        t, p = truth[n], prediction[n]
        if t == last_truth and p == last_prediction:
            run += 8
            continue
        if t == (t & _BYTE) * _ONES and p == (p & _BYTE) * _ONES:
            histogram[key] += run
            last_truth, last_prediction = t, p
            key, run = np.int64((t & _BYTE) << _EIGHT | (p & _BYTE)), 8
            continue
        for _ in range(4):  # two histograms in turn: neighbours mostly agree, and would wait for each other's count
            histogram[np.int64((t & _BYTE) << _EIGHT | (p & _BYTE))] += 1
            second[np.int64((t & _HIGH) | (p >> _EIGHT & _BYTE))] += 1
            t >>= _SIXTEEN
            p >>= _SIXTEEN
    histogram[key] += run
    histogram += second


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
