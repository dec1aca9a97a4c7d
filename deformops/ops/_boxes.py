"""Boxes as arguments of ops: how users give them, what is asked of them, how vmap stacks them.

The raw ops take one tensor [K, 5] of (image, x1, y1, x2, y2). It is float64 with a float64 input
and float32 with all others, because half types hold coordinates badly: float16 counts in steps of 2
above 2048, bfloat16 above 256, and an image's number is rounded like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from deformops.ops._checks import Checks
from deformops.ops._forms import Values, fold

Boxes = Tensor | Sequence[Tensor]
"""[K, 5] of (image, x1, y1, x2, y2), or for each image a tensor [L, 4] of (x1, y1, x2, y2)."""

BOXES = "[K, 5] (image, x1, y1, x2, y2)"


def box_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type of the boxes for an input of some type."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def as_rows(checks: Checks, boxes: Boxes, input: Tensor) -> Tensor:
    """Boxes as the raw ops take them. They are constants: no gradient goes into them."""
    checks.tensor("input", input, "[N, C, H, W]")
    dtype = box_dtype(input.dtype)
    if isinstance(boxes, Tensor):
        checks.tensor("boxes", boxes, "[K, 5]")
        return boxes.detach().to(dtype)
    checks.sequence("boxes", boxes, f"a tensor {BOXES} or a sequence of tensors [L, 4]")
    images = input.shape[0]
    expected = f"one tensor for each of the {images} images"
    checks.require(len(boxes) == images, "boxes", expected, len(boxes))
    rows = [input.new_empty((0, 5), dtype=dtype)]
    for image, one in enumerate(boxes):
        name = f"boxes[{image}]"
        checks.tensor(name, one, "[L, 4]")
        checks.shape(name, one, (one.shape[0], 4), "[L, 4] (x1, y1, x2, y2)")
        checks.device(name, one, "input", input)
        rows.append(F.pad(one.detach().to(dtype), (1, 0), value=float(image)))
    return torch.cat(rows)


def check_rows(checks: Checks, boxes: Any, reference: str, like: Tensor) -> None:
    """Boxes of the shape, type and device that a raw op wants beside a map."""
    checks.tensor("boxes", boxes, "[K, 5]")
    checks.shape("boxes", boxes, (boxes.shape[0], 5), BOXES)
    checks.dtype("boxes", boxes, box_dtype(like.dtype), f"{reference} of {like.dtype}")
    checks.device("boxes", boxes, reference, like)


def check_images(checks: Checks, boxes: Tensor, images: int) -> None:
    """Boxes of images that there are, where their numbers can be looked at.

    That is on the CPU (a GPU would have to be waited for), and not inside of `torch.func`.
    """
    if boxes.device.type != "cpu" or torch._C._are_functorch_transforms_active():
        return
    numbers = boxes[:, 0]
    wrong = ~((numbers >= 0) & (numbers < images) & (numbers == numbers.floor()))
    if wrong.any():
        row = int(wrong.nonzero()[0])
        expected = f"the number of one of the {images} images in column 0"
        checks.require(False, "boxes", expected, f"{float(numbers[row]):g} in row {row}")


def fold_with_boxes(
    size: int, images: int, values: Values, batched: Sequence[str], wanted: Sequence[str]
) -> tuple[Values, dict[str, int]]:
    """Makes one form of a batch of forms that pool boxes, for `Form.fold`.

    Forms side by side are more boxes. If each has images of its own, they are more images, too; or,
    as long as all have the same boxes, not more boxes but more channels.

    Args:
        size: B, the number of forms.
        images: N, how many images a form has.
        values: the tensors of all forms: `input` [N, C, H, W], `boxes` [K, 5], `offset` [K, 2 *
            classes, part_y, part_x], and others with K and channels as their first dimensions.
        batched: slots with a value for each form.
        wanted: slots with respect to which derivatives will be asked.

    Returns:
        The values of the one form, and for each slot the dimension that is B times as long.
    """
    own_images = "input" in batched or "input" in wanted
    if own_images and "boxes" not in batched:
        dims = {slot: 1 for slot in values if slot != "boxes"}
        offset = values.get("offset")
        if offset is not None and "offset" not in (*batched, *wanted) and offset.shape[1] == 2:
            # One class serves the channels of all forms; several would alternate.
            del dims["offset"]
        return fold(size, values, batched, dims), dims
    dims = {slot: 0 for slot in values if slot != "input"}
    if own_images:
        dims["input"] = 0
        values = {**values, "boxes": _renumbered(values["boxes"], images)}
    return fold(size, values, batched, dims), dims


def _renumbered(boxes: Tensor, images: int) -> Tensor:
    """Boxes [B, K, 5] whose form b has the images from b * images on; what is none stays none."""
    number = boxes[..., :1]
    first = images * torch.arange(boxes.shape[0], device=boxes.device)[:, None, None]
    exists = (number >= 0) & (number < images)
    return torch.cat([torch.where(exists, number + first, -1), boxes[..., 1:]], -1)
