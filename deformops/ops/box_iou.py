"""box_iou: how much boxes overlap."""

from __future__ import annotations

import torch
from torch import Tensor

from deformops.ops._suppression import check_box_iou


def box_iou(boxes1: Tensor, boxes2: Tensor, *, plus_one: bool = False) -> Tensor:
    """Intersection over union of every pair of boxes.

    Boxes are (x1, y1, x2, y2) with x1 <= x2 and y1 <= y2, in any unit; for `plus_one=False` the
    values are those of `torchvision.ops.box_iou`, to the bit:

        intersection = max(0, min(x2, x2') - max(x1, x1')) * max(0, min(y2, y2') - max(y1, y1'))
        overlap = intersection / (area + area' - intersection),   area = (x2 - x1) * (y2 - y1)

    Where both areas are 0 this is 0 / 0, NaN. A NaN in a box makes its overlaps NaN. A box with x2
    below x1 or y2 below y1 has nothing in common with any. float16 and bfloat16 are computed in
    float32 and rounded once.

    No memory is needed besides the result, unless derivatives are asked for: these come from
    torch's own ops, with some temporaries of the size of the result.

    Args:
        boxes1: [N, 4].
        boxes2: [M, 4].
        plus_one: the convention of the first R-CNN code, in which x2 and y2 belong to the box:
            every side is longer by 1, x2 - x1 + 1.

    Returns:
        [N, M], numbers from 0 to 1, of the type of the boxes.

    Raises:
        ValueError: a shape does not fit; the message names it.
        TypeError: an argument has the wrong type, or the boxes have different types.

    Example:
        >>> box = torch.tensor([[0.0, 0.0, 9.0, 9.0]])
        >>> deformops.box_iou(box, torch.tensor([[5.0, 0.0, 14.0, 9.0]]), plus_one=True)
        tensor([[0.3333]])
    """
    try:
        return torch.ops.deformops.box_iou(boxes1, boxes2, plus_one=plus_one)
    except RuntimeError:
        check_box_iou(boxes1, boxes2, plus_one)
        raise
