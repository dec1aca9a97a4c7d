"""Losses of boxes: is there an object, which one, and where."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from deformops.ops._checks import Checks


def smooth_l1(error: Tensor, sigma: float = 1.0) -> Tensor:
    """The loss R of an error in the code of a box: a parabola near 0, a line from there on.

        0.5 * (sigma * x)^2      for |x| < 1 / sigma^2
        |x| - 0.5 / sigma^2      elsewhere

    Args:
        error: any shape.
        sigma: 3 for proposals, 1 for detections.

    Returns:
        The shape of `error`.

    Raises:
        ValueError: sigma is not positive.

    Example:
        >>> smooth_l1(torch.tensor([0.1, 1.0]), sigma=3)
        tensor([0.0450, 0.9444])

    Source: Girshick, Fast R-CNN (2015), equation 3.
    """
    Checks("smooth_l1").positive("sigma", sigma)
    return F.smooth_l1_loss(error, torch.zeros_like(error), reduction="none", beta=sigma**-2)


def rpn_loss(
    scores: Tensor,
    codes: Tensor,
    labels: Tensor,
    targets: Tensor,
    *,
    sigma: float = 3.0,
    normalisation: str = "labels",
    size: int = 256,
    locations: int = 2400,
    balance: float = 10.0,
) -> tuple[Tensor, Tensor]:
    """The loss of a region proposal network.

        L = 1 / N_cls * sum of -log p(label)  +  lambda / N_reg * sum over positives of R(t - t*)

    Only anchors with a label of at least 0 count in the first, only positive ones in the second.
    With n of N images' anchors that count, the factors are

        normalisation    1 / N_cls       lambda / N_reg
        "labels"         1 / n           1 / n                               py-faster-rcnn
        "paper"          1 / (size N)    balance / (locations N)             about 1 / (240 N)
        "mxnet"          1 / n           1 / (size N)

    Args:
        scores: [N, A, K]: K = 1, the logit of an object; or those of background and of each class
            (2: an object of any class).
        codes: [N, A, 4], predicted.
        labels: int64 [N, A], the class; 0: background, -1: does not count.
        targets: [N, A, 4], what should be predicted.
        sigma: see `smooth_l1`.
        normalisation: see above.
        size: anchors that are drawn for an image.
        locations: cells of a typical map.
        balance: lambda.

    Returns:
        The loss of scores and the loss of boxes.

    Raises:
        ValueError: a shape does not fit, or there is no such normalisation.

    Source: Ren et al., Faster R-CNN (2015), equation 1.
    """
    checks = Checks("rpn_loss")
    checks.choice("normalisation", normalisation, ("labels", "paper", "mxnet"))
    _check_shapes(checks, scores, labels, targets, codes)
    if scores.shape[-1] == 1:
        wanted = (labels > 0).to(scores.dtype)
        entropy = F.binary_cross_entropy_with_logits(scores[..., 0], wanted, reduction="none")
        entropy = torch.where(labels >= 0, entropy, 0.0)
    else:
        entropy = _cross_entropy(scores, labels)
    boxes = torch.where(labels > 0, smooth_l1(codes - targets, sigma).sum(-1), 0.0)
    counted, images = (labels >= 0).sum().clamp(min=1), max(labels.shape[0], 1)
    of_scores = 1 / (size * images) if normalisation == "paper" else 1 / counted
    of_boxes: dict[str, Any] = {
        "labels": 1 / counted,
        "paper": balance / (locations * images),
        "mxnet": 1 / (size * images),
    }
    return entropy.sum() * of_scores, boxes.sum() * of_boxes[normalisation]


def box_losses(
    scores: Tensor, codes: Tensor, labels: Tensor, targets: Tensor, *, sigma: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The losses of each detected box: of its class, and of where it is.

    Args:
        scores: [..., C], logits of background and of each class.
        codes: [..., K, 4], a box for each class (K = C), or one for background and one for all
            classes (K = 2).
        labels: int64 [...], the class; 0: background, -1: does not count.
        targets: [..., 4], what should be predicted.
        sigma: see `smooth_l1`.

    Returns:
        Two [...]: -log p(label), and R of the box of that class, 0 for background.

    Raises:
        ValueError: a shape does not fit.

    Source: Girshick, Fast R-CNN (2015), section 2.3.
    """
    checks = Checks("box_losses")
    _check_shapes(checks, scores, labels, targets)
    fits = codes.shape[:-2] == labels.shape and codes.shape[-2:] in ((scores.shape[-1], 4), (2, 4))
    expected = f"shape [..., {scores.shape[-1]} or 2, 4] = {list(labels.shape)} + ..."
    checks.require(fits, "codes", expected, list(codes.shape))
    which = labels.clamp(0, codes.shape[-2] - 1)[..., None, None].expand(*labels.shape, 1, 4)
    error = codes.gather(-2, which).squeeze(-2) - targets
    boxes = torch.where(labels > 0, smooth_l1(error, sigma).sum(-1), 0.0)
    return _cross_entropy(scores, labels), boxes


def detection_loss(
    scores: Tensor, codes: Tensor, labels: Tensor, targets: Tensor, *, sigma: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The loss of detections: `box_losses`, summed, over the number of boxes that count.

    Args:
        scores: see `box_losses`, as all others.
        codes: [..., K, 4].
        labels: [...].
        targets: [..., 4].
        sigma: see `smooth_l1`.

    Returns:
        The loss of classes and the loss of boxes.

    Raises:
        ValueError: a shape does not fit.
    """
    classes, boxes = box_losses(scores, codes, labels, targets, sigma=sigma)
    counted = (labels >= 0).sum().clamp(min=1)
    return classes.sum() / counted, boxes.sum() / counted


def _cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """-log p(label) of logits [..., K], 0 for labels below 0."""
    flat = F.cross_entropy(
        scores.flatten(0, -2), labels.clamp(min=-1).flatten(), ignore_index=-1, reduction="none"
    )
    return flat.reshape(labels.shape)


def _check_shapes(
    checks: Checks, scores: Tensor, labels: Tensor, targets: Tensor, codes: Tensor | None = None
) -> None:
    """Scores for each label, and a code for each label."""
    expected = f"the shape of labels, {list(labels.shape)}, and one more"
    checks.require(scores.shape[:-1] == labels.shape, "scores", expected, list(scores.shape))
    for name, value in (("targets", targets), ("codes", codes)):
        if value is not None:
            expected = f"shape [..., 4] = {[*labels.shape, 4]}"
            checks.require(list(value.shape) == [*labels.shape, 4], name, expected, value.shape)
