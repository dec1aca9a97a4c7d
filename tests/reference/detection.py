"""Proposals, assignment and detections of one image, box by box.

All boxes are (x1, y1, x2, y2) whose last pixel belongs to them: a side has x2 - x1 + 1 pixels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.reference.suppression import box_iou, nms

Floats = NDArray[np.floating[Any]]


def encode(box: Floats, reference: Floats) -> list[float]:
    """The code of a box: difference of centres in sizes, logarithm of the ratio of sizes."""
    wide, high = box[2] - box[0] + 1, box[3] - box[1] + 1
    from_wide, from_high = reference[2] - reference[0] + 1, reference[3] - reference[1] + 1
    x = (box[0] + wide / 2) - (reference[0] + from_wide / 2)
    y = (box[1] + high / 2) - (reference[1] + from_high / 2)
    return [x / from_wide, y / from_high, math.log(wide / from_wide), math.log(high / from_high)]


def decode(code: Floats, reference: Floats) -> list[float]:
    """The box of a code; the inverse of `encode`."""
    wide, high = reference[2] - reference[0] + 1, reference[3] - reference[1] + 1
    x = code[0] * wide + reference[0] + wide / 2
    y = code[1] * high + reference[1] + high / 2
    wide, high = math.exp(code[2]) * wide, math.exp(code[3]) * high
    return [x - wide / 2, y - high / 2, x + wide / 2 - 1, y + high / 2 - 1]


def clip(box: list[float], height: int, width: int) -> list[float]:
    """A box whose corners are pixels of the image."""
    last = [width - 1, height - 1, width - 1, height - 1]
    return [min(max(value, 0.0), end) for value, end in zip(box, last, strict=True)]


def propose(
    scores: Floats,
    codes: Floats,
    anchors: Floats,
    image_size: tuple[int, int],
    most_before: int,
    most: int,
    iou_threshold: float,
    min_size: float,
) -> tuple[Floats, Floats]:
    """Decode, clip, drop the small, sort, cut, suppress, cut: boxes ``[K, 4]``, scores ``[K]``."""
    found: list[tuple[float, int, list[float]]] = []
    for place, (score, code, anchor) in enumerate(zip(scores, codes, anchors, strict=True)):
        box = clip(decode(code, anchor), *image_size)
        if box[2] - box[0] + 1 >= min_size and box[3] - box[1] + 1 >= min_size:
            found.append((-float(score), place, box))
    found = sorted(found)[:most_before]
    boxes = np.array([box for _, _, box in found]).reshape(-1, 4)
    kept_scores = np.array([-score for score, _, _ in found])
    keep = nms(boxes, kept_scores, iou_threshold, plus_one=True)[:most]
    return boxes[keep], kept_scores[keep]


def anchor_labels(
    anchors: Floats, objects: Floats, image_size: tuple[int, int], low: float, high: float
) -> tuple[list[int], list[int]]:
    """Label of each anchor before any is drawn, and the object that it overlaps most."""
    height, width = image_size
    overlaps = box_iou(anchors, objects, plus_one=True)
    inside = [x1 >= 0 and y1 >= 0 and x2 < width and y2 < height for x1, y1, x2, y2 in anchors]
    overlaps[~np.array(inside)] = -1
    labels, nearest = [], []
    for place, row in enumerate(overlaps):
        nearest.append(int(row.argmax()))
        best_of_some = any(
            overlap > 0 and overlap == overlaps[:, g].max() for g, overlap in enumerate(row)
        )
        if not inside[place]:
            labels.append(-1)
        elif best_of_some or row.max() >= high:
            labels.append(1)
        else:
            labels.append(0 if row.max() < low else -1)
    return labels, nearest


def detections(
    boxes: Floats,
    scores: Floats,
    image_size: tuple[int, int],
    min_score: float,
    iou_threshold: float,
    most: int,
) -> list[tuple[float, int, list[float]]]:
    """(score, class, box) of the best boxes ``[R, C, 4]`` of each class, by falling score."""
    found: list[tuple[float, int, list[float]]] = []
    for label in range(1, scores.shape[1]):
        chosen = scores[:, label] > min_score
        clipped = np.array([clip(box, *image_size) for box in boxes[chosen, label].tolist()])
        clipped = clipped.reshape(-1, 4)
        of_class = scores[chosen, label]
        for place in nms(clipped, of_class, iou_threshold, plus_one=True):
            found.append((float(of_class[place]), label, clipped[place].tolist()))
    return sorted(found, key=lambda entry: -entry[0])[:most]
