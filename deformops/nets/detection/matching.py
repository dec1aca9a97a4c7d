"""Which object each box is to learn, and which boxes learn at all."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from deformops.ops._checks import Checks


class Matches(NamedTuple):
    """For each of A boxes, the object that it overlaps most."""

    nearest: Tensor
    """int64 [..., A]: the object; of equal overlaps the first."""
    labels: Tensor
    """int64 [..., A]: 1 it shows the object, 0 it is background, -1 it is neither."""
    overlaps: Tensor
    """[..., A]: how much they overlap; 0 where there is no object."""


def match(
    overlaps: Tensor,
    *,
    low: float = 0.3,
    high: float = 0.7,
    low_quality: bool = True,
    zero_ties: bool = False,
) -> Matches:
    """Says which boxes show an object and which are background.

    By the largest overlap of a box with any object:

         1   at least `high`; and with `low_quality`, of all boxes the largest overlap with some
             object, however small, if not 0; boxes that tie for it all count
         0   less than `low`
        -1   in between

    The second rule leaves no object without a box that learns it, though that box may be matched to
    another object which it overlaps more.

    An object that no box overlaps has a largest overlap of 0, for which all boxes apart from it
    tie. py-faster-rcnn, the code in MATLAB and torchvision take them at their word: one such
    object, in a corner that no anchor within the image reaches, and every anchor shows an object.
    With `zero_ties` so it is here; without, as in later code, that object has no box.

    Args:
        overlaps: [..., A, G], intersection over union of A boxes with G objects; negative: the pair
            does not count. A NaN is a 0.
        low: below it a box is background.
        high: from it on a box shows the object.
        low_quality: whether the best boxes of an object show it in any case.
        zero_ties: whether they do even if the largest overlap is 0.

    Returns:
        nearest, labels and overlaps, [..., A].

    Raises:
        ValueError: a shape does not fit, or not 0 <= low <= high <= 1.
        TypeError: `overlaps` is no tensor.

    Source: Ren et al., Faster R-CNN (2015), section 3.1.2.
    """
    checks = Checks("match")
    if not isinstance(overlaps, Tensor):
        raise TypeError(f"match: overlaps: expected a tensor, got {type(overlaps).__name__}")
    checks.require(overlaps.dim() >= 2, "overlaps", "shape [..., A, G]", list(overlaps.shape))
    checks.require(0 <= low <= high <= 1, "low", f"a number from 0 to high = {high} <= 1", low)
    if overlaps.shape[-1] == 0:
        overlaps = F.pad(overlaps, (0, 1), value=-1)
    overlaps = overlaps.nan_to_num(nan=0.0)
    best, nearest = overlaps.max(-1)
    labels = (best >= high).long() - ((best >= low) & (best < high)).long()
    if low_quality and overlaps.shape[-2] > 0:
        best_of_object = overlaps.amax(-2, keepdim=True)
        enough = best_of_object >= 0 if zero_ties else best_of_object > 0
        wanted = (overlaps == best_of_object) & enough
        labels = labels.masked_fill(wanted.any(-1), 1)
    return Matches(nearest, labels, best.clamp(min=0))


def sample(
    labels: Tensor,
    size: int,
    most_positive: int,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draws boxes to learn from: some that show an object, the rest background.

    So many boxes as there are, at most `most_positive`, with a label above 0, and background up to
    `size` boxes in all; both uniformly at random, without repetition. With size 256 and
    most_positive 128, 10 boxes that show objects are padded with 246 of background.

    Args:
        labels: integers [..., A]: above 0 it shows an object, 0 background, below 0 neither.
        size: boxes to draw.
        most_positive: of them, boxes that may show an object.
        generator: where chance comes from; on any device. Absent: the global one of the device.

    Returns:
        bool [..., A]: which were drawn.

    Raises:
        ValueError: not 0 <= most_positive <= size.

    Source: Ren et al., Faster R-CNN (2015), section 3.1.3.
    """
    checks = Checks("sample")
    checks.integer("size", size)
    checks.integer("most_positive", most_positive)
    expected = f"a number from 0 to size = {size}"
    checks.require(0 <= most_positive <= size, "most_positive", expected, most_positive)
    device = labels.device if generator is None else generator.device
    chance = torch.rand(labels.shape, generator=generator, device=device).to(labels.device)
    positive = _first(labels > 0, chance, most_positive)
    return positive | _first(labels == 0, chance, size - positive.sum(-1, keepdim=True))


def hard_examples(losses: Tensor, size: int) -> Tensor:
    """Picks the boxes that are learned worst (online hard example mining).

    Args:
        losses: [..., A], the loss of each box; of equal ones the first are picked.
        size: boxes to pick.

    Returns:
        bool [..., A].

    Raises:
        ValueError: the size is negative.

    Source: Shrivastava et al., Training Region-based Object Detectors with OHEM (2016).
    """
    checks = Checks("hard_examples")
    checks.integer("size", size)
    checks.require(size >= 0, "size", "a number >= 0", size)
    return _first(torch.ones_like(losses, dtype=torch.bool), -losses.detach(), size)


def _first(mask: Tensor, keys: Tensor, count: int | Tensor) -> Tensor:
    """The `count` smallest keys where the mask is set."""
    order = keys.masked_fill(~mask, torch.inf).argsort(dim=-1, stable=True)
    return mask & (order.argsort(-1) < count)
