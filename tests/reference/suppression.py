"""Overlaps and non-maximum suppression, pair by pair.

Everything is computed in the type of the boxes, float32 or float64, one rounded operation after the
other in the order in which it is written, so that results can be compared bit by bit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def box_iou(boxes1: Floats, boxes2: Floats, plus_one: bool = False) -> Floats:
    """Intersection over union of every pair ``[N, M]``; 0 / 0 is NaN.

    A box has an area of ``(x2 - x1) * (y2 - y1)``, or with ``plus_one`` of
    ``(x2 - x1 + 1) * (y2 - y1 + 1)``; a NaN in it makes its area, and so all its overlaps, NaN.
    """
    overlaps = np.empty((len(boxes1), len(boxes2)), boxes1.dtype)
    with np.errstate(all="ignore"):
        for i, box in enumerate(boxes1):
            overlaps[i] = _overlaps_with(box, boxes2, plus_one)
    return overlaps


def _extent(low: Floats, high: Floats, plus_one: bool) -> Floats:
    extent: Floats = high - low
    return extent + extent.dtype.type(1) if plus_one else extent


def _overlaps_with(box: Floats, boxes: Floats, plus_one: bool) -> Floats:
    x1, y1, x2, y2 = box
    areas = _extent(boxes[:, 0], boxes[:, 2], plus_one) * _extent(
        boxes[:, 1], boxes[:, 3], plus_one
    )
    area = _extent(x1, x2, plus_one) * _extent(y1, y2, plus_one)
    width = _extent(np.maximum(x1, boxes[:, 0]), np.minimum(x2, boxes[:, 2]), plus_one)
    height = _extent(np.maximum(y1, boxes[:, 1]), np.minimum(y2, boxes[:, 3]), plus_one)
    common = np.maximum(width, 0) * np.maximum(height, 0)
    result: Floats = common / (area + areas - common)
    return result


def falling(scores: Floats) -> list[int]:
    """Indices by falling score: NaN before all numbers, equal ones in their order."""

    def key(i: int) -> tuple[int, float, int]:
        score = float(scores[i])
        return (0, 0.0, i) if math.isnan(score) else (1, -score, i)

    return sorted(range(len(scores)), key=key)


def nms(
    boxes: Floats,
    scores: Floats,
    threshold: float,
    idxs: NDArray[np.int64] | None = None,
    plus_one: bool = False,
) -> list[int]:
    """Indices of the boxes that are kept, by falling score.

    A kept box suppresses those that come after it, have its ``idxs``, and overlap it by more than
    the threshold, a float64.
    """
    suppressed = np.zeros(len(boxes), bool)
    kept = []
    with np.errstate(all="ignore"):
        for i in falling(scores):
            if suppressed[i]:
                continue
            kept.append(i)
            overlapped = _overlaps_with(boxes[i], boxes, plus_one).astype(np.float64) > threshold
            if idxs is not None:
                overlapped &= idxs == idxs[i]
            suppressed |= overlapped
    return kept


def soft_nms(
    boxes: Floats,
    scores: Floats,
    threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: str = "linear",
    plus_one: bool = False,
) -> tuple[Floats, list[int]]:
    """Final scores and indices in the order in which boxes are chosen.

    The best box is chosen; the others decay by how much they overlap it, and those whose score is
    below ``min_score`` are dropped; and so on. A weight of 0 leaves a score of 0, whatever it was;
    an overlap of 0 / 0 leaves it as it is.
    """
    current = scores.copy()
    left = [i for i in range(len(boxes)) if not current[i] < min_score]
    chosen: list[int] = []
    with np.errstate(all="ignore"):
        while left:
            best = left[falling(current[left])[0]]
            chosen.append(best)
            left.remove(best)
            overlaps = _overlaps_with(boxes[best], boxes, plus_one)
            for i in left:
                weight = _weight(overlaps[i], threshold, sigma, method)
                current[i] = current[i] * weight if weight != 0 else 0
            left = [i for i in left if not current[i] < min_score]
    return current[chosen], chosen


def _weight(overlap: Any, threshold: float, sigma: float, method: str) -> Any:
    if method == "gaussian":
        weight = np.exp(-(overlap * overlap) / overlap.dtype.type(sigma))
        return weight if overlap > 0 else overlap.dtype.type(1)
    if not float(overlap) > threshold:
        return overlap.dtype.type(1)
    if method == "linear":
        return np.maximum(overlap.dtype.type(1) - overlap, 0)
    return overlap.dtype.type(0)
