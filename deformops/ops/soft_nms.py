"""soft_nms: boxes that overlap better ones lose score."""

from __future__ import annotations

import torch
from torch import Tensor

from deformops.ops._suppression import check_soft_nms


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float = 0.3,
    *,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: str = "linear",
    plus_one: bool = False,
) -> tuple[Tensor, Tensor]:
    """Lets the scores of boxes decay that overlap better ones, instead of dropping them.

    The box with the highest score is chosen, and the scores of all that are left are multiplied by

        "linear":    1 - overlap if overlap > iou_threshold, else 1
        "gaussian":  exp(-overlap^2 / sigma)
        "naive":     0 if overlap > iou_threshold, else 1: `nms`

    Then the best of the rest is chosen, and so on. A box whose score is or falls below `min_score`
    is dropped. Overlaps, ties and odd boxes are treated as in `nms`, and all results are the same,
    to the bit, on every device. A NaN among the scores stays one and goes before all numbers. Other
    implementations decay at an overlap of exactly the threshold, too.

    The returned scores have derivatives with respect to boxes and scores, for a fixed choice; they
    need memory for every pair of chosen boxes.

    The time grows with the number of boxes times the number that is chosen; memory with the number
    of boxes. On a GPU the host waits for the number of chosen boxes.

    Args:
        boxes: [N, 4] as (x1, y1, x2, y2), in any unit.
        scores: [N], of the type of the boxes, not negative.
        iou_threshold: from 0 to 1; not used by "gaussian".
        sigma: how wide the decay of "gaussian" is, above 0.
        min_score: the lowest score of a result, at least 0.
        method: "linear", "gaussian" or "naive".
        plus_one: every side is longer by 1; see `box_iou`.

    Returns:
        scores: of the chosen boxes, after all decays.
        indices: int64, their places in `boxes`, in the order in which they were chosen, which is by
            falling score.

    Raises:
        ValueError: a shape or option does not fit; the message names it.
        TypeError: an argument has the wrong type, or boxes and scores have different types.

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 3], [5, 5, 9, 9]])
        >>> deformops.soft_nms(boxes, torch.tensor([0.9, 0.8, 0.7]))
        (tensor([0.9000, 0.7000, 0.2000]), tensor([0, 2, 1]))

    Source: Bodla et al., Soft-NMS: improving object detection with one line of code (2017).
    """
    options = {"sigma": sigma, "min_score": min_score, "method": method, "plus_one": plus_one}
    try:
        return torch.ops.deformops.soft_nms(boxes, scores, iou_threshold, **options)
    except RuntimeError:
        check_soft_nms(boxes, scores, iou_threshold, sigma, min_score, method, plus_one)
        raise
