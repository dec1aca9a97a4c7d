"""nms_padded: non-maximum suppression with results of a fixed size."""

from __future__ import annotations

import torch
from torch import Tensor

from deformops.ops._suppression import check_nms_padded


def nms_padded(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    max_output: int,
    *,
    idxs: Tensor | None = None,
    plus_one: bool = False,
) -> tuple[Tensor, Tensor]:
    """Keeps the best of boxes that overlap, in a result whose size does not depend on them.

    The indices are the first `max_output` of `nms`, or with `idxs` of `batched_nms`; see there.
    Since all sizes are known before, the host does not wait for a GPU, `torch.export` and CUDA
    graphs have no dynamic size, and `torch.vmap` takes a batch of images in one call.

    Args:
        boxes: [N, 4] as (x1, y1, x2, y2), in any unit.
        scores: [N], of the type of the boxes.
        iou_threshold: from 0 (no overlap is allowed) to 1 (nothing is dropped).
        max_output: the size of the result.
        idxs: [N] int64, the group of each box; absent: all are of one group.
        plus_one: every side is longer by 1; see `box_iou`.

    Returns:
        indices: [max_output] int64, the kept boxes by falling score, then -1.
        count: [] int64, how many are not -1.

    Raises:
        ValueError: a shape does not fit, or a number is out of range; the message names it.
        TypeError: an argument has the wrong type, or boxes and scores have different types.

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 3], [5, 5, 9, 9]])
        >>> deformops.nms_padded(boxes, torch.tensor([0.7, 0.8, 0.9]), 0.5, 4)
        (tensor([ 2,  1, -1, -1]), tensor(2))
    """
    try:
        indices, counts = torch.ops.deformops.nms_padded(
            boxes.unsqueeze(0),
            scores.unsqueeze(0),
            None if idxs is None else idxs.unsqueeze(0),
            iou_threshold,
            max_output,
            plus_one=plus_one,
        )
    except (RuntimeError, AttributeError):
        check_nms_padded(boxes, scores, idxs, iou_threshold, max_output, plus_one, batch="")
        raise
    return indices.squeeze(0), counts.squeeze(0)
