"""How well labels agree with the truth."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_iou(labels: Tensor, truth: Tensor, *, ignore_index: int | None = 255) -> float:
    """Returns the mean over labels of intersection over union, as PASCAL VOC scores segmentations.

        IoU(l) = |labels = l and truth = l| / |labels = l or truth = l|

    Labels that occur in neither are not counted.

    Args:
        labels: integers of any shape.
        truth: integers of the same shape.
        ignore_index: where the truth is this, nothing is counted; None: everything is.

    Returns:
        The mean, NaN if there is nothing to count.

    Raises:
        ValueError: the shapes differ.
        TypeError: an argument is no tensor of integers.
    """
    for name, tensor in (("labels", labels), ("truth", truth)):
        if not isinstance(tensor, Tensor) or tensor.is_floating_point() or tensor.is_complex():
            got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"mean_iou: {name}: expected a tensor of integers, got {got}")
    if labels.shape != truth.shape:
        raise ValueError(
            f"mean_iou: truth: expected shape {list(labels.shape)}, got {list(truth.shape)}"
        )
    counted = torch.ones_like(truth, dtype=torch.bool)
    if ignore_index is not None:
        counted = truth != ignore_index
    values, given = torch.unique(
        torch.cat([labels[counted].long(), truth[counted].long()]), return_inverse=True
    )
    mine, theirs = given.chunk(2)
    count = len(values)
    both = torch.bincount(mine[mine == theirs], minlength=count)
    either = torch.bincount(mine, minlength=count) + torch.bincount(theirs, minlength=count) - both
    return float((both / either).mean()) if count else float("nan")
