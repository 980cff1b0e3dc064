"""Matching of boxes to ground truth by COCOeval's rules, compiled by numba.

COCOeval matches once for each of 4 area ranges and 10 IoU thresholds. Here the 40 answers are bits of one word: bit
``10 a + t`` stands for area range a (all, small, medium, large) and IoU threshold t. A detection's overlaps are sorted
once, best first, and each one takes all the bits that are still open. That gives the same matches, because COCOeval
seeks, for each bit by itself, the best overlap among ground truths that count, and only then among ignored ones.

Source: pycocotools/cocoeval.py (evaluateImg) and common/maskApi.c (bbIou); every floating-point operation is theirs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.jit import compiled

AREAS, THRESHOLDS = 4, 10
_RANGE = np.int64((1 << THRESHOLDS) - 1)
_EVERY_RANGE = np.int64(sum(1 << THRESHOLDS * a for a in range(AREAS)))  # times bits of thresholds: those bits in all
_INSERTION = 48  # up to so many detections are sorted by insertion


@compiled
def group(cell: NDArray[np.int64], cells: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Stable counting sort.

    Args:
        cell: int64 [N], from 0 to ``cells - 1``.
        cells: M.

    Returns:
        int64 [M + 1], where each cell starts; int64 [N], the entries by cell.
    """
    start = np.zeros(cells + 1, np.int64)
    for n in range(len(cell)):
        start[cell[n] + 1] += 1
    for n in range(cells):
        start[n + 1] += start[n]
    place = start[:-1].copy()
    order = np.empty(len(cell), np.int64)
    for n in range(len(cell)):
        order[place[cell[n]]] = n
        place[cell[n]] += 1
    return start, order


@compiled
def sort_by_score(
    start: NDArray[np.int64], order: NDArray[np.int64], scores: NDArray[np.float64], most: int
) -> NDArray[np.int64]:
    """Sort each cell by descending score, equal scores as they stood, and find where each cell's best `most` start.

    Args:
        start: int64 [M + 1], as from `group`.
        order: int64 [N], as from `group`; sorted in place.
        scores: float64 [N], of the entries.
        most: How many of a cell are kept.

    Returns:
        int64 [M + 1], where each cell would start if only its best were kept.
    """
    kept = np.zeros_like(start)
    for cell in range(len(start) - 1):
        first, last = start[cell], start[cell + 1]
        kept[cell + 1] = kept[cell] + min(last - first, most)
        if last - first > _INSERTION:
            members = order[first:last].copy()
            order[first:last] = members[np.argsort(-scores[members], kind="mergesort")]
            continue
        for i in range(first + 1, last):
            one = order[i]
            score, j = scores[one], i
            while j > first and scores[order[j - 1]] < score:
                order[j] = order[j - 1]
                j -= 1
            order[j] = one
    return kept


@compiled
def match(
    first_cell: int,
    last_cell: int,
    start: NDArray[np.int64],
    kept: NDArray[np.int64],
    order: NDArray[np.int64],
    boxes: NDArray[np.float64],
    truth_start: NDArray[np.int64],
    truth_order: NDArray[np.int64],
    truth_boxes: NDArray[np.float64],
    truth_area: NDArray[np.float64],
    crowd: NDArray[np.bool_],
    area_ranges: NDArray[np.float64],
    iou_thresholds: NDArray[np.float64],
    chosen: NDArray[np.int64],
    cell_of: NDArray[np.int64],
    matched: NDArray[np.int64],
    ignored: NDArray[np.int64],
    counts: NDArray[np.int32],
) -> None:
    """Match detections to ground truth in the cells (one image and category each) from `first_cell` to `last_cell`.

    Args:
        first_cell: The first cell to match.
        last_cell: The first cell after them.
        start: int64 [M + 1], first place of each cell in `order`.
        kept: int64 [M + 1], first place of each cell in the filled arrays, as from `sort_by_score`.
        order: int64 [N], detections by cell and descending score.
        boxes: float64 [N, 4], x, y, width, height.
        truth_start: int64 [M + 1], first place of each cell in `truth_order`.
        truth_order: int64 [G], ground truths by cell, in the file's order.
        truth_boxes: float64 [G, 4].
        truth_area: float64 [G], from the annotation (of its mask, where there is one).
        crowd: bool [G].
        area_ranges: float64 [4, 2], inclusive.
        iou_thresholds: float64 [10], ascending.
        chosen: int64 [K], filled: which detection stands here.
        cell_of: int64 [K], filled: its cell.
        matched: int64 [K], filled: bit set where the detection has a match.
        ignored: int64 [K], filled: bit set where the detection neither counts for nor against.
        counts: int32 [M, 4], filled: ground truths of each cell that count, by area range.
    """
    most = 0
    for cell in range(first_cell, last_cell):
        most = max(most, truth_start[cell + 1] - truth_start[cell])
    taken, outside = np.empty(most, np.int64), np.empty(most, np.int64)
    overlap, which, bits = np.empty(most), np.empty(most, np.int64), np.empty(most, np.int64)
    for cell in range(first_cell, last_cell):
        g0 = truth_start[cell]
        truths = truth_start[cell + 1] - g0
        for g in range(truths):
            taken[g] = 0
            one = truth_order[g0 + g]
            outside[g] = 0
            for a in range(AREAS):
                low, high = area_ranges[a]
                if crowd[one] or truth_area[one] < low or truth_area[one] > high:
                    outside[g] |= _RANGE << np.int64(THRESHOLDS * a)
                else:
                    counts[cell, a] += 1
        for d in range(kept[cell + 1] - kept[cell]):
            here, detection = kept[cell] + d, order[start[cell] + d]
            chosen[here], cell_of[here] = detection, cell
            dx, dy, dw, dh = boxes[detection]
            edges = 0
            for g in range(truths):
                one = truth_order[g0 + g]
                gx, gy, gw, gh = truth_boxes[one]
                w = min(dw + dx, gw + gx) - max(dx, gx)
                if w <= 0:
                    continue
                h = min(dh + dy, gh + gy) - max(dy, gy)
                if h <= 0:
                    continue
                intersection = w * h
                union = dw * dh if crowd[one] else dw * dh + gw * gh - intersection
                iou = intersection / union
                if not iou >= iou_thresholds[0]:
                    continue
                reached = np.int64(0)
                for t in range(THRESHOLDS):
                    if iou >= iou_thresholds[t]:
                        reached |= np.int64(1) << np.int64(t)
                e = edges
                while e > 0 and overlap[e - 1] <= iou:  # the later of tied ground truths wins
                    overlap[e], which[e], bits[e] = overlap[e - 1], which[e - 1], bits[e - 1]
                    e -= 1
                overlap[e], which[e], bits[e] = iou, g, reached * _EVERY_RANGE
                edges += 1
            open_bits = _RANGE * _EVERY_RANGE
            for e in range(edges):
                g = which[e]
                now = bits[e] & open_bits & ~outside[g] & ~taken[g]
                taken[g] |= now
                open_bits &= ~now
            matched_bits = _RANGE * _EVERY_RANGE & ~open_bits
            ignored_bits = np.int64(0)
            for e in range(edges):
                g = which[e]
                now = bits[e] & open_bits & outside[g]
                if not crowd[truth_order[g0 + g]]:  # a crowd may be matched many times
                    now &= ~taken[g]
                taken[g] |= now
                open_bits &= ~now
                ignored_bits |= now
            matched[here] = matched_bits | ignored_bits
            area = dw * dh
            for a in range(AREAS):
                if area < area_ranges[a, 0] or area > area_ranges[a, 1]:
                    ignored_bits |= open_bits & (_RANGE << np.int64(THRESHOLDS * a))
            ignored[here] = ignored_bits
