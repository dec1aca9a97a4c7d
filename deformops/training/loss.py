"""The loss of dense labels: softmax and cross entropy of every pixel that counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def shrink_labels(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Labels [N, H, W] at the size of a network's scores: the nearest, corners on corners.

    Row i of h comes from row i (H - 1) / (h - 1), as Caffe's Interp layer has it.
    """
    if tuple(labels.shape[-2:]) == tuple(size):
        return labels
    rows, columns = (
        torch.linspace(0, old - 1, new, dtype=torch.float64).round().long().to(labels.device)
        for old, new in zip(labels.shape[-2:], size, strict=True)
    )
    return labels[:, rows][:, :, columns]


def count_pixels(labels: Tensor, ignore: int) -> int:
    """How many labels count."""
    return int((labels != ignore).sum())


def summed_loss(scores: Tensor, labels: Tensor, ignore: int) -> Tensor:
    """The sum over pixels of -log softmax(scores)[label], where the label is not to be ignored.

    Args:
        scores: [N, classes, h, w].
        labels: [N, h, w] integers.
        ignore: the label that says nothing.

    Returns:
        A scalar; 0 where nothing counts.
    """
    return F.cross_entropy(scores, labels.long(), ignore_index=ignore, reduction="sum")
