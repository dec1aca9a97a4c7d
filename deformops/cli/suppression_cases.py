"""The small problems of boxes that overlap, for `deformops check`.

What is kept does not change with small changes, so the functions here return the boxes that are
kept, which do. The references go through pairs of boxes one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from deformops.cli.case import Case
from deformops.testing import CHECKS

_THRESHOLD, _MOST = 0.4, 4
# Two clusters; no overlap is near the threshold, no two scores are alike in a half type.
_BOXES = [
    [1.0, 1.5, 9.25, 8.0],
    [2.5, 1.0, 10.0, 8.75],
    [1.5, 2.25, 8.5, 9.5],
    [6.0, 5.0, 12.5, 13.0],
    [20.0, 18.5, 31.0, 26.5],
    [21.5, 17.0, 30.0, 27.25],
]
_SCORES = [0.5, 0.8, 0.65, 0.3, 0.7, 0.9]
_GROUPS = [3, 3, 7, 7, 3, 7]
# Other boxes keep another number of them: results of batches and of other layouts differ in size.
_UNPADDED = tuple(check for check in CHECKS if check not in ("vmap", "layouts"))


def suppression_cases(ops: Any, device: str) -> list[Case]:
    """The cases for the ops in a namespace and tensors on a device."""
    boxes, scores = (
        torch.tensor(of, dtype=torch.float64, device=device) for of in (_BOXES, _SCORES)
    )
    groups = torch.tensor(_GROUPS, device=device)

    def kept(boxes: Tensor, scores: Tensor, groups: Tensor | None = None) -> Tensor:
        indices = ops.nms(boxes, scores, groups, _THRESHOLD)
        return _listed(boxes, scores, indices)

    def padded(boxes: Tensor, scores: Tensor) -> Tensor:
        (indices,), (count,) = ops.nms_padded(boxes[None], scores[None], None, _THRESHOLD, _MOST)
        exists = torch.arange(_MOST, device=device) < count
        return _listed(boxes, scores, indices.clamp(min=0)) * exists[:, None]

    def decayed(boxes: Tensor, scores: Tensor, method: str) -> Tensor:
        chosen, indices = ops.soft_nms(boxes, scores, _THRESHOLD, method=method)
        return torch.cat([boxes[indices], chosen[:, None]], 1)

    def suppression(name: str, function: Any, reference: Any, call: Any, **options: Any) -> Case:
        return Case(name, function, reference, (boxes, scores), (), [call], **options)

    batch = (boxes[None], scores[None], groups[None], _THRESHOLD, _MOST)
    result = [
        Case(
            "box_iou",
            ops.box_iou,
            _overlaps,
            (boxes[:3], boxes[3:]),
            (0,),
            [(ops.box_iou.default, (boxes[:3], boxes[3:]))],
        ),
        suppression(
            "nms",
            kept,
            _kept,
            (ops.nms.default, (boxes, scores, None, _THRESHOLD)),
            checks=_UNPADDED,
        ),
        suppression(
            "batched_nms",
            partial(kept, groups=groups),
            partial(_kept, groups=_GROUPS),
            (ops.nms.default, (boxes, scores, groups, _THRESHOLD)),
            checks=_UNPADDED,
        ),
        suppression("nms_padded", padded, _padded, (ops.nms_padded.default, batch)),
    ]
    result += [
        suppression(
            f"soft_nms {method}",
            partial(decayed, method=method),
            partial(_decayed, weight=weight),
            (ops.soft_nms.default, (boxes, scores, _THRESHOLD)),
            checks=_UNPADDED,
        )
        for method, weight in (("linear", _linear), ("gaussian", _gaussian))
    ]
    return result


def _listed(boxes: Tensor, scores: Tensor, indices: Tensor) -> Tensor:
    return torch.cat([boxes[indices], scores[indices, None]], 1)


def _overlap(one: Tensor, other: Tensor) -> float:
    """By the lengths that two boxes share and cover on each axis."""
    shared, areas = 1.0, [1.0, 1.0]
    for axis in (0, 1):
        sides = [(float(box[axis]), float(box[axis + 2])) for box in (one, other)]
        (low, high), (other_low, other_high) = sides
        shared *= max(0.0, min(high, other_high) - max(low, other_low))
        areas = [area * (end - start) for area, (start, end) in zip(areas, sides, strict=True)]
    return shared / (sum(areas) - shared)


def _overlaps(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    return boxes1.new_tensor([[_overlap(one, other) for other in boxes2] for one in boxes1])


def _kept(boxes: Tensor, scores: Tensor, groups: list[int] | None = None) -> Tensor:
    kept: list[int] = []
    for i in scores.argsort(descending=True).tolist():
        rivals = (j for j in kept if groups is None or groups[i] == groups[j])
        if all(_overlap(boxes[i], boxes[j]) <= _THRESHOLD for j in rivals):
            kept.append(i)
    return _listed(boxes, scores, torch.tensor(kept, device=boxes.device))


def _padded(boxes: Tensor, scores: Tensor) -> Tensor:
    listed = _kept(boxes, scores)[:_MOST]
    return torch.cat([listed, listed.new_zeros(_MOST - len(listed), 5)])


def _linear(overlap: float) -> float:
    return 1 - overlap if overlap > _THRESHOLD else 1.0


def _gaussian(overlap: float) -> float:
    return float(torch.exp(torch.tensor(-(overlap**2) / 0.5, dtype=torch.float64)))


def _decayed(boxes: Tensor, scores: Tensor, weight: Callable[[float], float]) -> Tensor:
    current = dict(enumerate(scores.tolist()))
    rows = []
    while current:
        best = max(current, key=lambda i: current[i])
        rows.append([*boxes[best].tolist(), current.pop(best)])
        for i in current:
            current[i] *= weight(_overlap(boxes[best], boxes[i]))
    return boxes.new_tensor(rows)
