"""nms: non-maximum suppression."""

from __future__ import annotations

import torch
from torch import Tensor

from deformops.ops._suppression import check_nms


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, *, plus_one: bool = False) -> Tensor:
    """Keeps the best of boxes that overlap.

    The box with the highest score is kept, and those that overlap it by more than the threshold are
    dropped; of the rest again the best is kept, and so on. It is what `torchvision.ops.nms` does on
    the CPU, and every decision is the same, to the bit, on every device:

    - Overlaps are those of `box_iou`, compared with `iou_threshold` as a float64: a box that
      overlaps by exactly the threshold stays. float16 and bfloat16 are computed in float32.
    - Of equal scores the first goes first. A NaN goes before all numbers, as in `torch.sort`, so
      that it shows.
    - A box with a NaN, without an area, with x2 below x1 or y2 below y1, or of infinite area is
      kept, and drops no other.

    On the CPU the time is about proportional to the number of boxes. Memory is: 150 bytes for each
    box in float32, 200 in float64. On a GPU the host waits for the number of kept boxes;
    `nms_padded` does not.

    Args:
        boxes: [N, 4] as (x1, y1, x2, y2), in any unit.
        scores: [N], of the type of the boxes.
        iou_threshold: from 0 (no overlap is allowed) to 1 (nothing is dropped).
        plus_one: every side is longer by 1; see `box_iou`.

    Returns:
        int64 indices of the kept boxes, by falling score.

    Raises:
        ValueError: a shape does not fit, or the threshold is not in [0, 1]; the message names it.
        TypeError: an argument has the wrong type, or boxes and scores have different types.

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 4, 4], [1, 1, 5, 5], [2, 1, 6, 5], [4, 0, 8, 4]])
        >>> deformops.nms(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6]), 0.3)
        tensor([0, 2, 3])
    """
    try:
        return torch.ops.deformops.nms(boxes, scores, None, iou_threshold, plus_one=plus_one)
    except RuntimeError:
        check_nms("nms", boxes, scores, None, iou_threshold, plus_one)
        raise
