"""batched_nms: non-maximum suppression, each group for itself."""

from __future__ import annotations

import torch
from torch import Tensor

from deformops.ops._suppression import BoxChecks, check_nms


def batched_nms(
    boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float, *, plus_one: bool = False
) -> Tensor:
    """Keeps the best of boxes that overlap and belong to one group, such as a class of an image.

    It is `nms` for each group alone; see there for which boxes are kept. The groups are sorted
    apart. No coordinates are shifted to keep them apart, as in `torchvision.ops.batched_nms` and
    its relatives: that goes wrong for negative coordinates, and costs digits where there are many
    groups.

    Args:
        boxes: [N, 4] as (x1, y1, x2, y2), in any unit.
        scores: [N], of the type of the boxes.
        idxs: [N] int64, the group of each box; any numbers.
        iou_threshold: from 0 (no overlap is allowed) to 1 (nothing is dropped).
        plus_one: every side is longer by 1; see `box_iou`.

    Returns:
        int64 indices of the kept boxes of all groups, by falling score.

    Raises:
        ValueError: a shape does not fit, or the threshold is not in [0, 1]; the message names it.
        TypeError: an argument has the wrong type, or boxes and scores have different types.

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 4, 4]])
        >>> scores, idxs = torch.tensor([0.7, 0.8, 0.9]), torch.tensor([1, 0, 1])
        >>> deformops.batched_nms(boxes, scores, idxs, 0.5)
        tensor([2, 1])
    """
    if idxs is None:  # which the raw op takes for one group
        BoxChecks("batched_nms").idxs(idxs, scores)
    try:
        return torch.ops.deformops.nms(boxes, scores, idxs, iou_threshold, plus_one=plus_one)
    except RuntimeError:
        check_nms("batched_nms", boxes, scores, idxs, iou_threshold, plus_one)
        raise
