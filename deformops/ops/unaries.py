"""Energies for `dense_crf`, from probabilities and from labels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deformops.ops._checks import Checks
from deformops.ops._labels import check_integers, check_range, one_hot
from deformops.ops._points import check_map


def unary_from_probabilities(
    probabilities: Tensor, scale: float | None = None, clip: float | None = 1e-5
) -> Tensor:
    """Returns -log of probabilities, kept away from 0.

    As `pydensecrf.utils.unary_from_softmax`.

    Args:
        probabilities: [N, L, ...].
        scale: how certain a probability of 1 is, above 0 and up to 1: probabilities are mixed with
            1 - scale of the uniform distribution. None: as they are.
        clip: the least probability; None: 0, whose energy is infinite.

    Returns:
        [N, L, ...] energies.

    Raises:
        ValueError: an argument does not fit.
        TypeError: probabilities is no tensor of floating-point numbers.
    """
    checks = Checks("unary_from_probabilities")
    check_map(checks, "probabilities", probabilities, "L")
    if scale is not None:
        checks.require(0 < scale <= 1, "scale", "a number above 0 and up to 1", scale)
        probabilities = scale * probabilities + (1 - scale) / probabilities.shape[1]
    if clip is not None:
        checks.require(0 < clip < 1, "clip", "a number between 0 and 1", clip)
        probabilities = probabilities.clamp(clip, 1.0)
    return -probabilities.log()


def unary_from_labels(
    labels: Tensor,
    n_labels: int,
    gt_prob: float,
    zero_unsure: bool = True,
    *,
    ignore_index: int | None = None,
) -> Tensor:
    """Returns the energies of a classifier that is right with some probability.

    As `pydensecrf.utils.unary_from_labels`: the label that is given has the probability gt_prob,
    the others share the rest.

    Args:
        labels: [N, ...] integers.
        n_labels: L, without the unsure one.
        gt_prob: between 0 and 1.
        zero_unsure: whether label 0 says that any label may be right, and labels 1 to L stand for
            channels 0 to L - 1. Otherwise labels are the channels.
        ignore_index: another label that says so, as 255 in PASCAL VOC.

    Returns:
        [N, L, ...] energies, float32.

    Raises:
        ValueError: an argument does not fit, or a label is out of range.
        TypeError: labels is no tensor of integers.

    Example:
        >>> deformops.unary_from_labels(torch.tensor([[0, 1, 2]]), 2, 0.7)
        tensor([[[0.6931, 0.3567, 1.2040],
                 [0.6931, 1.2040, 0.3567]]])
    """
    checks = Checks("unary_from_labels")
    check_integers(checks, "labels", labels)
    checks.require(
        labels.dim() >= 2, "labels", "at least 2 dimensions [N, ...]", list(labels.shape)
    )
    checks.integer("n_labels", n_labels)
    checks.require(n_labels >= 2, "n_labels", "at least 2", n_labels)
    checks.require(0 < gt_prob < 1, "gt_prob", "a number between 0 and 1", gt_prob)
    first = int(zero_unsure)
    unsure = (labels == 0) & zero_unsure
    if ignore_index is not None:
        unsure = unsure | (labels == ignore_index)
    sure = labels.long().masked_fill(unsure, first)
    check_range(checks, "labels", sure, first, first + n_labels - 1)
    right, wrong = -math.log(gt_prob), -math.log((1 - gt_prob) / (n_labels - 1))
    energies = wrong + (right - wrong) * one_hot(sure - first, n_labels, torch.float32)
    return torch.where(unsure.unsqueeze(1), math.log(n_labels), energies)
