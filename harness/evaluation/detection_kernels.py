"""The reductions of box evaluation, compiled by numba: precision curves, and many weighted numbers at once.

The rules and the order of every floating-point operation are COCOeval's (pycocotools/cocoeval.py), so that results
are equal to it bit for bit. Words hold a bit for each area range and IoU threshold (see `match_kernels`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.jit import compiled
from harness.evaluation.match_kernels import AREAS, THRESHOLDS

RECALLS = 101
LANES = 64  # weightings reduced side by side; measured best of 8 to 64
_ALL = (1 << THRESHOLDS) - 1
_TINY = float(np.spacing(1.0))


@compiled
def curves(
    start: NDArray[np.int64],
    scores: NDArray[np.float64],
    rank: NDArray[np.int32],
    matched: NDArray[np.int64],
    ignored: NDArray[np.int64],
    positives: NDArray[np.int64],
    max_detections: NDArray[np.int64],
    recall_thresholds: NDArray[np.float64],
    precision: NDArray[np.float64],
    recall: NDArray[np.float64],
    score_at: NDArray[np.float64],
) -> None:
    """COCOeval.accumulate: fill precision and score [10, 101, K, 4, 3] and recall [10, K, 4, 3], -1 where undefined.

    Precision falls from one true positive to the next, and recall rises at true positives only: nothing else needs to
    be looked at but the number of false positives before each. Most detections match nothing at any threshold; they
    are counted once for all thresholds.

    Args:
        start: int64 [K + 1], first detection of each category; within a category by descending score.
        scores: float64 [N].
        rank: int32 [N], place of the detection within its image and category.
        matched: int64 [N].
        ignored: int64 [N].
        positives: int64 [K, 4], ground truths that count.
        max_detections: int64 [3].
        recall_thresholds: float64 [101], the first is 0.
        precision: Filled.
        recall: Filled.
        score_at: Filled.
    """
    limits = len(max_detections)
    most = 0
    for k in range(len(start) - 1):
        most = max(most, start[k + 1] - start[k])
    special = np.empty(most, np.int64)
    before = np.empty((most, limits, AREAS), np.int64)  # unmatched detections that score higher and count
    envelope, reached, at_score = np.empty(most + 1), np.empty(most + 1), np.empty(most + 1)
    unmatched = np.empty((limits, AREAS), np.int64)
    for k in range(len(start) - 1):
        size = 0
        unmatched[:] = 0
        for i in range(start[k], start[k + 1]):
            if matched[i]:
                special[size] = i
                before[size] = unmatched
                size += 1
                continue
            for a in range(AREAS):
                if not (ignored[i] >> np.int64(THRESHOLDS * a)) & 1:  # alike at every threshold
                    for m in range(limits):
                        unmatched[m, a] += rank[i] < max_detections[m]
        best = scores[start[k]] if start[k + 1] > start[k] else 0.0
        for a in range(AREAS):
            if positives[k, a] == 0:
                continue
            for m in range(limits):
                for t in range(THRESHOLDS):
                    shift = np.int64(THRESHOLDS * a + t)
                    tp, others, n = 0.0, 0, 0
                    for s in range(size):
                        i = special[s]
                        if rank[i] >= max_detections[m] or (ignored[i] >> shift) & 1:
                            continue
                        if not (matched[i] >> shift) & 1:
                            others += 1
                            continue
                        tp += 1
                        fp = np.float64(before[s, m, a] + others)
                        reached[n] = tp / positives[k, a]
                        envelope[n] = tp / (fp + tp + _TINY)
                        at_score[n] = scores[i]
                        n += 1
                    recall[t, k, a, m] = reached[n - 1] if n else 0.0
                    for i in range(n - 1, 0, -1):
                        if envelope[i] > envelope[i - 1]:
                            envelope[i - 1] = envelope[i]
                    i = 0
                    for r in range(RECALLS):
                        while i < n and reached[i] < recall_thresholds[r]:
                            i += 1
                        precision[t, r, k, a, m] = envelope[i] if i < n else 0.0
                        score_at[t, r, k, a, m] = at_score[i] if i < n else 0.0
                    score_at[t, 0, k, a, m] = best  # recall 0 is reached by the first detection, whatever it is


@compiled
def condense(
    matched: NDArray[np.int64], ignored: NDArray[np.int64], area: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Which detections matter in an area range, and how.

    Returns:
        int64 [M], the detections that count at any threshold, and int32 [M], bits 0-9 true positive at threshold t,
        bits 10-19 false positive at t.
    """
    kept = np.empty(len(matched), np.int64)
    bits = np.empty(len(matched), np.int32)
    n = 0
    for i in range(len(matched)):
        hit = (matched[i] >> np.int64(THRESHOLDS * area)) & _ALL
        counts = ~(ignored[i] >> np.int64(THRESHOLDS * area)) & _ALL
        if counts:
            kept[n] = i
            bits[n] = (hit & counts) | ((~hit & counts) << THRESHOLDS)
            n += 1
    return kept[:n].copy(), bits[:n].copy()


@compiled
def count_positives(
    image: NDArray[np.int32],
    category: NDArray[np.int32],
    count: NDArray[np.int32],
    weights: NDArray[np.int32],
    positives: NDArray[np.int32],
) -> None:
    """Weighted ground truths: add ``count[g, a] * weights[image[g]]`` to ``positives[category[g], a]`` [LANES]."""
    for g in range(len(image)):
        w = weights[image[g]]
        for a in range(AREAS):
            if count[g, a]:
                for lane in range(LANES):
                    positives[category[g], a, lane] += count[g, a] * w[lane]


@compiled
def reduce_lanes(
    start: NDArray[np.int64],
    image: NDArray[np.int32],
    bits: NDArray[np.int32],
    rank: NDArray[np.int32],
    positives: NDArray[np.int32],
    recall_thresholds: NDArray[np.float64],
    weights: NDArray[np.int32],
    average_precision: NDArray[np.float64],
    average_recall: NDArray[np.float64],
    areas: int,
) -> None:
    """Weighted precision and recall of one category under LANES weightings side by side.

    Precision is wanted only at true positives, and most detections are false positives at every threshold: those are
    summed up once for all thresholds. The rest is walked backwards from the totals, so that the envelope of the
    precision and the recall thresholds that each true positive reaches come in one pass. A group of w copies of a
    true positive has its highest precision at its last copy, so the group counts as one step.

    Args:
        start: int64 [5], first entry of each area range.
        image: int32 [M], image of each entry.
        bits: int32 [M], from `condense`.
        rank: int32 [M].
        positives: int32 [4, LANES], weighted ground truths.
        recall_thresholds: float64 [101].
        weights: int32 [images, LANES].
        average_precision: float64 [10, 4, LANES], filled: the sum over 101 recall points (not their mean).
        average_recall: float64 [10, 6, LANES], filled: area all with 1, 10, 100 detections; small, medium, large.
        areas: For how many area ranges, from all on; those of the others are left as they are.
    """
    for a in range(areas):
        first, last = start[a], start[a + 1]
        special = 0
        for i in range(first, last):
            if bits[i] != _ALL << THRESHOLDS:
                special += 1
        before = np.empty((special, LANES), np.int32)  # false positives at every threshold that score higher
        index = np.empty(special, np.int64)
        running = np.zeros(LANES, np.int32)
        hits = np.zeros((THRESHOLDS, LANES), np.int32)
        misses = np.zeros((THRESHOLDS, LANES), np.int32)
        few = np.zeros((THRESHOLDS, 2, LANES), np.int32)  # hits among the first 1 and 10 detections
        s = 0
        for i in range(first, last):
            w = weights[image[i]]
            if bits[i] == _ALL << THRESHOLDS:
                for lane in range(LANES):
                    running[lane] += w[lane]
                continue
            before[s] = running
            index[s] = i
            s += 1
            for t in range(THRESHOLDS):
                if (bits[i] >> t) & 1:
                    for lane in range(LANES):
                        hits[t, lane] += w[lane]
                    if a == 0 and rank[i] < 10:
                        for lane in range(LANES):
                            few[t, 1, lane] += w[lane]
                        if rank[i] < 1:
                            for lane in range(LANES):
                                few[t, 0, lane] += w[lane]
                elif (bits[i] >> (THRESHOLDS + t)) & 1:
                    for lane in range(LANES):
                        misses[t, lane] += w[lane]
        steps = _recalls_reached(positives[a], recall_thresholds)
        envelope = np.empty(LANES)
        points = np.empty(LANES)
        reached = np.empty(LANES, np.int64)
        left = np.empty(LANES, np.int64)
        for t in range(THRESHOLDS):
            tp, fp = hits[t].astype(np.float64), misses[t].astype(np.float64)
            for lane in range(LANES):
                total = positives[a, lane]
                average_recall[t, 2 if a == 0 else 2 + a, lane] = tp[lane] / total
                if a == 0:
                    average_recall[t, 0, lane] = few[t, 0, lane] / total
                    average_recall[t, 1, lane] = few[t, 1, lane] / total
                envelope[lane] = 0.0
                points[lane] = 0.0
                reached[lane] = steps[lane, hits[t, lane]]
            for s in range(special - 1, -1, -1):
                i = index[s]
                w = weights[image[i]]
                if (bits[i] >> t) & 1:
                    for lane in range(LANES):
                        value = tp[lane] / (fp[lane] + before[s, lane] + tp[lane] + _TINY)
                        envelope[lane] = max(envelope[lane], value)
                        tp[lane] -= w[lane]
                        left[lane] = np.int64(np.int32(tp[lane]))
                    for lane in range(LANES):
                        remaining = steps[lane, left[lane]]
                        points[lane] += envelope[lane] * (reached[lane] - remaining)
                        reached[lane] = remaining
                elif (bits[i] >> (THRESHOLDS + t)) & 1:
                    for lane in range(LANES):
                        fp[lane] -= w[lane]
            for lane in range(LANES):
                average_precision[t, a, lane] = points[lane]


@compiled
def _recalls_reached(positives: NDArray[np.int32], recall_thresholds: NDArray[np.float64]) -> NDArray[np.uint8]:
    """How many recall thresholds a number of true positives reaches, by the comparison that COCOeval makes.

    Args:
        positives: int32 [LANES].
        recall_thresholds: float64 [101].

    Returns:
        uint8 [LANES, max(positives) + 1]; 0 for no true positive, although the first threshold is 0: the precision
        there is the envelope's at the first true positive.
    """
    steps = np.zeros((LANES, positives.max() + 1), np.uint8)
    for lane in range(LANES):
        total, r = positives[lane], 0
        for tp in range(1, total + 1):
            while r < RECALLS and tp / total >= recall_thresholds[r]:
                r += 1
            steps[lane, tp] = r
    return steps
