"""The objects of a batch of images, in tensors of one size for all images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from deformops.ops import box_iou
from deformops.ops._checks import Checks


class Targets(NamedTuple):
    """The objects in each of N images; where an image has fewer than G, the rest is empty."""

    boxes: Tensor
    """[N, G, 4] as (x1, y1, x2, y2), in pixels."""
    labels: Tensor
    """int64 [N, G]: classes from 1; 0: there is no such object."""

    def overlaps(self, boxes: Tensor, *, plus_one: bool = True) -> Tensor:
        """Intersection over union of boxes with the objects, -1 for those that are not there.

        Args:
            boxes: [A, 4], the same for all images, or [N, A, 4].
            plus_one: see `deformops.box_iou`.

        Returns:
            [N, A, G].
        """

        def of_one_image(boxes: Tensor, objects: Tensor) -> Tensor:
            return box_iou(boxes, objects, plus_one=plus_one)

        per_image = 0 if boxes.dim() == 3 else None
        result = torch.vmap(of_one_image, (per_image, 0))(boxes, self.boxes)
        return result.masked_fill(self.labels[:, None] == 0, -1)

    def at(self, index: Tensor) -> Targets:
        """Those of the objects, [N, A, 4] and [N, A], at places int64 [N, A]."""
        boxes = self.boxes.gather(1, index.unsqueeze(-1).expand(-1, -1, 4))
        return Targets(boxes, self.labels.gather(1, index))


def stack_targets(images: Sequence[Mapping[str, Tensor]], like: Tensor) -> Targets:
    """Puts the objects of images into tensors of one size.

    Args:
        images: for each image "boxes" [L, 4] as (x1, y1, x2, y2) with x1 <= x2 and y1 <= y2, and
            "labels" int64 [L], classes from 1; other entries are not looked at.
        like: its type and device are those of the boxes.

    Returns:
        Targets with at least one, perhaps empty, object for each image.

    Raises:
        ValueError: a shape does not fit, a label is below 1, or a box is not finite or has a corner
            before its first one.
        TypeError: an entry is missing or no tensor.
    """
    checks = Checks("stack_targets")
    checks.sequence("images", images, "a list with the boxes and labels of each image")
    for image in images:
        for name in ("boxes", "labels"):
            if not isinstance(image.get(name), Tensor):
                raise TypeError(f"stack_targets: images: expected a tensor {name!r} for each image")
        boxes, labels = image["boxes"], image["labels"]
        count = labels.shape[0] if labels.dim() == 1 else -1
        checks.require(count >= 0, "labels", "shape [L]", list(labels.shape))
        fits = tuple(boxes.shape) == (count, 4)
        checks.require(fits, "boxes", f"shape [L, 4] = [{count}, 4]", list(boxes.shape))
        wrong = ~(boxes.isfinite().all(-1) & (boxes[:, 2:] >= boxes[:, :2]).all(-1))
        checks.require(not wrong.any(), "boxes", "x1 <= x2, y1 <= y2", boxes[wrong].tolist())
        checks.require(not (labels < 1).any(), "labels", "classes from 1", labels.tolist())
    count = max([1, *(len(image["labels"]) for image in images)])
    all_boxes = like.new_zeros((len(images), count, 4))
    all_labels = like.new_zeros((len(images), count), dtype=torch.int64)
    for n, image in enumerate(images):
        all_boxes[n, : len(image["boxes"])] = image["boxes"].to(all_boxes)
        all_labels[n, : len(image["labels"])] = image["labels"].to(all_labels)
    return Targets(all_boxes, all_labels)
