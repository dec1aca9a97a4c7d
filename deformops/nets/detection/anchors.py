"""Anchors: boxes of a few shapes at every cell of a map, the places where a detector looks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from deformops.ops._checks import Checks

_FAMILIES = ("py-faster-rcnn", "chainercv", "detectron2", "torchvision")


def base_anchors(
    base_size: float = 16,
    ratios: Sequence[float] = (0.5, 1.0, 2.0),
    scales: Sequence[float] = (8, 16, 32),
    *,
    family: str = "py-faster-rcnn",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Returns the anchors of the first cell of a map, in pixels of the image.

    One of ratio r (height / width) and scale s has the area (s * base_size)^2:

        width = s * base_size / sqrt(r),   height = width * r

    Implementations disagree about the rest, and weights belong to one of them:

    - "py-faster-rcnn": both sides are rounded (halves to even) before they are scaled, width first;
      the last pixel belongs to the box, whose centre is (base_size - 1) / 2. The table in the
      comments of that code is MATLAB's, which counts from 1: every number is one larger there.
    - "chainercv": nothing is rounded, the centre is base_size / 2.
    - "detectron2": nothing is rounded, the centre is 0; anchors of a scale lie together.
    - "torchvision": corners are rounded (halves to even), the centre is 0.

    Args:
        base_size: pixels; in the first of these the stride of the map.
        ratios: height / width.
        scales: sides of the anchors, in base sizes.
        family: whose rounding, centre and order.
        dtype: type of the result.
        device: where it is made.

    Returns:
        [ratios * scales, 4] as (x1, y1, x2, y2); the scales of a ratio lie together, except in
        "detectron2".

    Raises:
        ValueError: a number is not positive, there is none, or there is no such family.
        TypeError: a number is none.

    Example:
        >>> base_anchors()[0]
        tensor([-84., -40.,  99.,  55.])

    Source: Ren et al., Faster R-CNN (2015), section 3.1.1.
    """
    checks = Checks("base_anchors")
    checks.choice("family", family, _FAMILIES)
    checks.positive("base_size", base_size)
    for name, numbers in (("ratios", ratios), ("scales", scales)):
        checks.sequence(name, numbers, "a list of numbers")
        checks.require(len(numbers) > 0, name, "at least one number", numbers)
        for number in numbers:
            checks.positive(name, number)
    if family == "detectron2":
        shapes = [(ratio, scale) for scale in scales for ratio in ratios]
    else:
        shapes = [(ratio, scale) for ratio in ratios for scale in scales]
    last = 1 if family == "py-faster-rcnn" else 0
    centre = (base_size - last) / 2 if family in ("py-faster-rcnn", "chainercv") else 0.0
    rows = []
    for ratio, scale in shapes:
        width = math.sqrt(base_size * base_size / ratio)
        height = width * ratio
        if family == "py-faster-rcnn":
            width = round(width)
            height = round(width * ratio)
        x, y = (scale * width - last) / 2, (scale * height - last) / 2
        rows.append([centre - x, centre - y, centre + x, centre + y])
    anchors = torch.tensor(rows, dtype=torch.float64)
    return (anchors.round() if family == "torchvision" else anchors).to(device, dtype)


def grid_anchors(base: Tensor, map_size: Sequence[int], stride: int | tuple[int, int]) -> Tensor:
    """Repeats the anchors of the first cell at every cell of a map.

    Those of cell (y, x) are `base` moved by (x * stride_x, y * stride_y). Since nothing else tells
    cells apart, an image that is moved by the stride has its proposals moved by as much.

    Args:
        base: [A, 4] as (x1, y1, x2, y2).
        map_size: (H, W), the size that the network in fact produced.
        stride: pixels of the image from one cell to the next, one number or (y, x).

    Returns:
        [H * W * A, 4]: rows of the map, cells of a row, anchors of a cell.

    Raises:
        ValueError: a shape or number does not fit.
        TypeError: an argument has the wrong type.

    Example:
        >>> grid_anchors(base_anchors(), (38, 63), 16).shape
        torch.Size([21546, 4])
    """
    checks = Checks("grid_anchors")
    checks.tensor("base", base, "[A, 4]")
    checks.require(base.shape[1] == 4, "base", "shape [A, 4]", list(base.shape))
    height, width = map_size
    step_y, step_x = (stride, stride) if isinstance(stride, int) else stride
    for name, numbers, least in (("map_size", (height, width), 0), ("stride", (step_y, step_x), 1)):
        checks.require(min(numbers) >= least, name, f"numbers >= {least}", list(numbers))
    y = torch.arange(height, dtype=base.dtype, device=base.device) * step_y
    x = torch.arange(width, dtype=base.dtype, device=base.device) * step_x
    y, x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack([x, y, x, y], dim=-1)
    return (shifts[:, :, None] + base).reshape(-1, 4)


def inside_image(boxes: Tensor, image_sizes: Tensor, *, border: float = 0) -> Tensor:
    """Says which boxes do not cross the border of an image.

    A box is inside if -border <= x1, -border <= y1, x2 < W + border and y2 < H + border. The paper
    trains with these anchors only.

    Args:
        boxes: [A, 4] as (x1, y1, x2, y2).
        image_sizes: [N, 2] as (H, W), in pixels.
        border: pixels around the image that still count as inside.

    Returns:
        bool [N, A].

    Raises:
        ValueError: a shape does not fit.
        TypeError: an argument is no tensor.

    Source: Ren et al., Faster R-CNN (2015), section 3.3.
    """
    checks = Checks("inside_image")
    checks.tensor("boxes", boxes, "[A, 4]")
    checks.rank("image_sizes", image_sizes, "[N, 2]")
    low = (boxes[:, :2] >= -border).all(-1)
    high = boxes[:, 2:] < image_sizes.flip(-1)[:, None] + border
    return low & high.all(-1)
