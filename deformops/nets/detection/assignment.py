"""What a detector is to learn: of its anchors, and of its proposals."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from deformops.nets.detection.anchors import inside_image
from deformops.nets.detection.box_coder import BoxCoder
from deformops.nets.detection.matching import match, sample
from deformops.nets.detection.proposals import Proposals, take
from deformops.nets.detection.targets import Targets
from deformops.ops._checks import Checks


class AnchorTargets(NamedTuple):
    """What the anchors of N images are to learn."""

    labels: Tensor
    """int64 [N, A]: the class, or 1 for all; 0: background; -1: does not count."""
    codes: Tensor
    """[N, A, 4]: of the object that is overlapped most; 0 where the label is not positive."""


class RoITargets(NamedTuple):
    """S boxes of each of N images, and what they are to learn."""

    boxes: Tensor
    """[N, S, 4] as (x1, y1, x2, y2), in pixels of the image."""
    labels: Tensor
    """int64 [N, S]: the class; 0: background; -1: does not count."""
    codes: Tensor
    """[N, S, 4]: of the object that is overlapped most; 0 where the label is not positive."""


def anchor_targets(
    anchors: Tensor,
    targets: Targets,
    image_sizes: Tensor,
    *,
    size: int = 256,
    most_positive: int = 128,
    low: float = 0.3,
    high: float = 0.7,
    zero_ties: bool = False,
    border: float | None = 0.0,
    class_aware: bool = False,
    coder: BoxCoder | None = None,
    generator: torch.Generator | None = None,
) -> AnchorTargets:
    """Draws the anchors of a batch that a region proposal network learns from.

    Args:
        anchors: [A, 4] as (x1, y1, x2, y2).
        targets: the objects.
        image_sizes: [N, 2] as (H, W), in pixels.
        size: anchors to draw of each image; see `sample`.
        most_positive: of them, anchors that may show an object.
        low: see `match`.
        high: see `match`.
        zero_ties: see `match`.
        border: anchors that reach so many pixels over the border of the image do not count; None:
            all count.
        class_aware: labels are the classes of the objects.
        coder: makes the codes, and says whether sides are longer by 1. Absent: `BoxCoder()`.
        generator: see `sample`.

    Returns:
        labels [N, A] and codes [N, A, 4].

    Raises:
        ValueError: a shape or number does not fit.

    Source: Ren et al., Faster R-CNN (2015), sections 3.1.2 and 3.1.3.
    """
    coder = BoxCoder() if coder is None else coder
    overlaps = targets.overlaps(anchors, plus_one=coder.plus_one)
    if border is not None:
        inside = inside_image(anchors, image_sizes, border=border)
        overlaps = overlaps.masked_fill(~inside.unsqueeze(-1), -1)
    matches = match(overlaps, low=low, high=high, zero_ties=zero_ties)
    labels = matches.labels
    if border is not None:
        labels = labels.masked_fill(~inside, -1)
    drawn = sample(labels, size, most_positive, generator=generator)
    labels = labels.masked_fill(~drawn, -1)
    objects = targets.at(matches.nearest)
    codes = coder.encode(objects.boxes, anchors, objects.labels)
    codes = codes.masked_fill((labels <= 0).unsqueeze(-1), 0)
    if class_aware:
        labels = torch.where(labels > 0, objects.labels, labels)
    return AnchorTargets(labels, codes)


def sample_rois(
    proposals: Proposals,
    targets: Targets,
    *,
    size: int | None = 128,
    foreground_fraction: float = 0.25,
    foreground: float = 0.5,
    background: tuple[float, float] = (0.0, 0.5),
    coder: BoxCoder | None = None,
    generator: torch.Generator | None = None,
) -> RoITargets:
    """Draws the boxes of a batch that a detector learns from: of proposals and the objects' own.

    A box shows the object that it overlaps most if by at least `foreground`, and is background if
    by a number from background[0] to before background[1]. The numbers for each image are fixed;
    where there are not enough boxes, the rest have the label -1.

    Args:
        proposals: of the same images.
        targets: the objects.
        size: boxes of each image; None: all, for `hard_examples`.
        foreground_fraction: of them, boxes that may show an object (rounded).
        foreground: see above.
        background: see above; from 0.1 on in Fast R-CNN, from 0 on in Faster R-CNN.
        coder: makes the codes, and says whether sides are longer by 1. Absent: `BoxCoder()`.
        generator: see `sample`.

    Returns:
        boxes [N, S, 4], labels [N, S] and codes [N, S, 4]; S is `size`, or the number of proposals
        and objects.

    Raises:
        ValueError: a number does not fit.

    Source: Girshick, Fast R-CNN (2015), section 2.3.
    """
    checks = Checks("sample_rois")
    fits = 0 <= foreground_fraction <= 1
    checks.require(fits, "foreground_fraction", "a number from 0 to 1", foreground_fraction)
    low, high = background
    fits = 0 <= low <= high <= foreground
    checks.require(fits, "background", f"0 <= low <= high <= {foreground}", background)
    coder = BoxCoder() if coder is None else coder
    boxes = torch.cat([proposals.boxes, targets.boxes.to(proposals.boxes)], dim=1)
    exists = torch.cat([proposals.exist(), targets.labels > 0], dim=1)
    overlaps = targets.overlaps(boxes, plus_one=coder.plus_one)
    matches = match(overlaps, low=high, high=foreground, low_quality=False)
    counts = exists & ((matches.labels > 0) | (matches.overlaps >= low))
    labels = matches.labels.masked_fill(~counts, -1)
    objects = targets.at(matches.nearest)
    labels = torch.where(labels > 0, objects.labels, labels)
    codes = coder.encode(objects.boxes, boxes, objects.labels)
    codes = codes.masked_fill((labels <= 0).unsqueeze(-1), 0)
    if size is None:
        return RoITargets(boxes, labels, codes)
    drawn = sample(labels, size, round(size * foreground_fraction), generator=generator)
    order = drawn.long().argsort(dim=-1, descending=True, stable=True)[:, :size]
    index = F.pad(
        order.masked_fill(~drawn.gather(1, order), -1), (0, size - order.shape[1]), value=-1
    )
    boxes, labels, codes = take(index, boxes, labels, codes)
    return RoITargets(boxes, labels.masked_fill(index < 0, -1), codes)
