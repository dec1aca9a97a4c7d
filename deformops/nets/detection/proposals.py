"""Proposals: from what a network predicts to the best boxes, for a batch of images at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from deformops.nets.detection.box_coder import BoxCoder, clip_boxes
from deformops.ops import nms_padded
from deformops.ops._checks import Checks


class Proposals(NamedTuple):
    """The best boxes of each of N images; where an image has fewer than P, the rest is zeros."""

    boxes: Tensor
    """[N, P, 4] as (x1, y1, x2, y2), by falling score."""
    scores: Tensor
    """[N, P]."""
    counts: Tensor
    """int64 [N]: how many there are."""

    def exist(self) -> Tensor:
        """Whether there is such a box, bool [N, P]."""
        places = torch.arange(self.boxes.shape[1], device=self.boxes.device)
        return places < self.counts[:, None]

    def as_list(self) -> list[Tensor]:
        """[L, 4] for each image; the host waits for the counts."""
        return [
            boxes[:count] for boxes, count in zip(self.boxes, self.counts.tolist(), strict=True)
        ]

    def repeated(self, generator: torch.Generator | None = None) -> Proposals:
        """Proposals in which boxes drawn at random take the place of zeros, as in MXNet.

        An image without a box keeps its zeros.
        """
        shape, device = self.scores.shape, self.scores.device
        chance = torch.rand(
            shape, generator=generator, device=device if generator is None else generator.device
        )
        drawn = (chance.to(device) * self.counts[:, None]).long()
        places = torch.arange(shape[1], device=device).expand(shape)
        index = torch.where(self.exist(), places, drawn)
        boxes = self.boxes.gather(1, index.unsqueeze(-1).expand(-1, -1, 4))
        counts = torch.where(self.counts > 0, shape[1], 0)
        return Proposals(boxes, self.scores.gather(1, index), counts)


def propose(
    scores: Tensor,
    codes: Tensor,
    anchors: Tensor,
    image_sizes: Tensor,
    *,
    most_before: int | None = 6000,
    most: int = 300,
    iou_threshold: float = 0.7,
    min_size: float = 16.0,
    image_scales: Tensor | None = None,
    coder: BoxCoder | None = None,
) -> Proposals:
    """Makes proposals of what a region proposal network predicts.

    Boxes are decoded and clipped to the image; those with a side below min_size * image_scale are
    dropped; of the others the `most_before` best are kept, of these those that no better one
    overlaps by more than the threshold, of these the `most` best. Of equal scores the first goes
    first. No gradient comes from proposals. All sizes are fixed: the host waits for nothing.

    Args:
        scores: [N, A], of any kind: only their order counts.
        codes: [N, A, 4], the predicted code of a box, seen from its anchor.
        anchors: [A, 4] as (x1, y1, x2, y2).
        image_sizes: [N, 2] as (H, W), in pixels.
        most_before: see above: 12000 in training, 6000 in test; None: all, as for the proposals of
            the second step of alternating training.
        most: see above: 2000 in training, 300 in test.
        iou_threshold: see above.
        min_size: pixels of the photo: 16 in py-faster-rcnn, 0 in MXNet; 8, and switched off, in
            others.
        image_scales: [N], pixels of the image for each of the photo. Absent: 1.
        coder: how codes are read, and whether sides are longer by 1. Absent: `BoxCoder()`.

    Returns:
        boxes [N, most, 4], scores [N, most] and counts [N].

    Raises:
        ValueError: a shape or number does not fit.
        TypeError: an argument has the wrong type.

    Source: Ren et al., Faster R-CNN (2015), section 3.3.
    """
    checks = Checks("propose")
    checks.tensor("scores", scores, "[N, A]")
    images, count = scores.shape
    for name, value, shape in (
        ("codes", codes, (images, count, 4)),
        ("anchors", anchors, (count, 4)),
        ("image_sizes", image_sizes, (images, 2)),
        *([] if image_scales is None else [("image_scales", image_scales, (images,))]),
    ):
        expected = f"shape {list(shape)}"
        checks.require(tuple(value.shape) == shape, name, expected, list(value.shape))
    if most_before is not None:
        checks.require(most_before >= 1, "most_before", "a number above 0", most_before)
    coder = BoxCoder() if coder is None else coder
    scores, codes = scores.detach(), codes.detach()
    boxes = clip_boxes(coder.decode(codes, anchors), image_sizes, plus_one=coder.plus_one)
    least = boxes.new_tensor(min_size)
    if image_scales is not None:
        least = least * image_scales.to(boxes)[:, None, None]
    sizes = boxes[..., 2:] - boxes[..., :2] + int(coder.plus_one)
    scores = scores.to(boxes.dtype).masked_fill((sizes < least).any(-1), -torch.inf)
    scores, order = scores.sort(dim=-1, descending=True, stable=True)
    scores, order = scores[:, :most_before], order[:, :most_before]
    boxes = boxes.gather(1, order.unsqueeze(-1).expand(-1, -1, 4))
    index, counts = best_boxes(boxes, scores, iou_threshold, most, plus_one=coder.plus_one)
    boxes, scores = take(index, boxes, scores)
    return Proposals(boxes, scores, counts)


def best_boxes(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    most: int,
    *,
    groups: Tensor | None = None,
    plus_one: bool = True,
) -> tuple[Tensor, Tensor]:
    """Non-maximum suppression of a batch of images, as `deformops.nms_padded` does it.

    Args:
        boxes: [N, A, 4].
        scores: [N, A]; -inf: there is no such box.
        iou_threshold: how much boxes may overlap.
        most: boxes to keep in each image.
        groups: int64 [N, A], boxes of different ones may overlap.
        plus_one: every side is longer by 1.

    Returns:
        int64 index [N, most], by falling score, then -1; and count [N].
    """

    def of_one_image(boxes: Tensor, scores: Tensor, groups: Tensor | None) -> tuple[Tensor, Tensor]:
        return nms_padded(boxes, scores, iou_threshold, most, idxs=groups, plus_one=plus_one)

    in_dims = (0, 0, None if groups is None else 0)
    index, _ = torch.vmap(of_one_image, in_dims)(boxes, scores, groups)
    if scores.shape[1] == 0:
        return index, index.new_zeros(scores.shape[0])
    exists = (index >= 0) & (scores.gather(1, index.clamp(min=0)) != -torch.inf)
    return index.masked_fill(~exists, -1), exists.sum(-1)


def take(index: Tensor, *values: Tensor) -> list[Tensor]:
    """Entries [N, P, ...] of values [N, A, ...] at places int64 [N, P]; zeros where that is -1."""
    result = []
    for value in values:
        extra = (1,) * (value.dim() - 2)
        if value.shape[1] == 0:
            result.append(value.new_zeros(*index.shape, *value.shape[2:]))
            continue
        places = index.clamp(min=0).reshape(*index.shape, *extra)
        taken = value.gather(1, places.expand(*index.shape, *value.shape[2:]))
        result.append(taken.masked_fill((index < 0).reshape(*index.shape, *extra), 0))
    return result
