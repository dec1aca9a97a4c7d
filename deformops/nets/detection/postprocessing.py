"""From the scores of boxes to a short list of detections for each image."""

from __future__ import annotations

import torch
from torch import Tensor

from deformops.nets.detection.box_coder import clip_boxes
from deformops.nets.detection.proposals import best_boxes, take
from deformops.ops._checks import Checks


def select_detections(
    boxes: Tensor,
    scores: Tensor,
    image_sizes: Tensor,
    *,
    min_score: float = 0.05,
    iou_threshold: float = 0.3,
    most: int = 100,
    plus_one: bool = True,
) -> list[dict[str, Tensor]]:
    """Keeps the best boxes of each class, and of all classes the best of each image.

    Boxes are clipped to the image; those with a score above `min_score` and an area go through
    suppression, each class alone, and the `most` best of all classes remain. One box may be kept
    for several classes.

    Args:
        boxes: [N, R, C, 4], a box for each class, or [N, R, 1, 4], one for all, as
            (x1, y1, x2, y2).
        scores: [N, R, C], probabilities of background (class 0) and of each class; -inf where there
            is no box.
        image_sizes: [N, 2] as (H, W), in pixels.
        min_score: see above.
        iou_threshold: two boxes of a class may overlap by so much.
        most: see above.
        plus_one: every side is longer by 1.

    Returns:
        For each image "boxes" [L, 4], "scores" [L] and "labels" int64 [L], by falling score.

    Raises:
        ValueError: a shape or number does not fit.

    Source: Girshick, Fast R-CNN (2015), section 3.2.
    """
    checks = Checks("select_detections")
    checks.tensor("scores", scores, "[N, R, C]")
    images, count, classes = scores.shape
    fits = tuple(boxes.shape) in ((images, count, classes, 4), (images, count, 1, 4))
    expected = f"shape [N, R, C or 1, 4] = {[images, count, classes, 4]}"
    checks.require(fits, "boxes", expected, list(boxes.shape))
    boxes = clip_boxes(boxes, image_sizes, plus_one=plus_one)
    boxes = boxes.expand(-1, -1, classes, -1)[:, :, 1:].flatten(1, 2)
    scores = scores[:, :, 1:].flatten(1).to(boxes.dtype)
    labels = torch.arange(1, classes, device=scores.device).repeat(images, count)
    has_area = (boxes[..., 2:] - boxes[..., :2] + int(plus_one) > 0).all(-1)
    scores = scores.masked_fill(~((scores > min_score) & has_area), -torch.inf)
    index, kept = best_boxes(boxes, scores, iou_threshold, most, groups=labels, plus_one=plus_one)
    chosen = zip(*take(index, boxes, scores, labels), kept.tolist(), strict=True)
    return [
        {"boxes": boxes[:kept], "scores": scores[:kept], "labels": labels[:kept]}
        for boxes, scores, labels, kept in chosen
    ]
