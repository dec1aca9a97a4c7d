"""Where the parts of a box are that deformable RoI pooling averages."""

from __future__ import annotations

import torch
from torch import Tensor

from deformops.ops._sampling import pair


def displaced_parts(
    boxes: Tensor,
    offset: Tensor | None,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    *,
    offset_scale: float = 0.1,
    part_size: int | tuple[int, int] | None = None,
    semantics: str = "dcn",
) -> Tensor:
    """Computes the bins of boxes as `deform_roi_pool` moves them, in pixels of the image.

    Bin i of P on an axis of a box from `low` to `high` covers

        start  = round(low) - 1/2        extent = round(high) + 1 - round(low)      for "dcn"
        start  = low - 1/2               extent = high - low                        for "mmcv"
        move   = offset * offset_scale * extent
        bin    = [start + i * extent / P + move, start + (i + 1) * extent / P + move]

    in pixels of the image. Both conventions have their samples inside, see `deform_roi_pool`.

    Args:
        boxes: [K, 4] of (x1, y1, x2, y2), or [K, 5] with the image in front.
        offset: [K, 2, part_y, part_x], x before y, or None: bins stay in place. Of offsets for
            several classes give those of one.
        output_size: bins of each box, one number or (P_y, P_x).
        spatial_scale: pixels of the map for each of the image.
        offset_scale: how far an offset of 1 moves, in extents of the box.
        part_size: parts of a box with offsets of their own; `output_size` if None. It follows from
            the shape of `offset` if there is one.
        semantics: "dcn" or "mmcv".

    Returns:
        [K, P_y, P_x, 4] of (x1, y1, x2, y2), float64, in pixels of the image, where pixel 0 reaches
        from -0.5 to 0.5.

    Raises:
        ValueError: a shape or option does not fit.

    Example:
        >>> box = torch.tensor([[10, 10, 29, 49]])
        >>> displaced_parts(box, torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1), 1)[0, 0, 0]
        tensor([11.5000,  9.5000, 31.5000, 49.5000], dtype=torch.float64)

    Source: Dai et al., Deformable Convolutional Networks (2017), section 2.2 and figure 7.
    """
    if boxes.ndim != 2 or boxes.shape[1] not in (4, 5):
        raise ValueError(f"boxes: expected [K, 4] or [K, 5], got {list(boxes.shape)}")
    if semantics not in ("dcn", "mmcv"):
        raise ValueError(f"semantics: expected 'dcn' or 'mmcv', got {semantics!r}")
    bins = pair("output_size", output_size)
    parts = bins if part_size is None else pair("part_size", part_size)
    if offset is not None:
        if offset.ndim != 4 or offset.shape[:2] != (len(boxes), 2) or 0 in offset.shape[2:]:
            raise ValueError(
                f"offset: expected [{len(boxes)}, 2, part_y, part_x], got {list(offset.shape)}"
            )
        parts = (offset.shape[2], offset.shape[3])
    corners = boxes[:, -4:].detach().double().cpu().flip(-1)  # y2, x2, y1, x1
    high, low = corners.split(2, dim=1)
    if semantics == "dcn":
        high, low = _rounded(high) + 1, _rounded(low)
    extent = high - low
    if semantics == "dcn":
        extent = extent.clamp(min=0.1 / spatial_scale)
    start, end = [], []
    for axis, count in enumerate(bins):
        number = torch.arange(count)
        edge = low[:, None, None, axis] - 0.5
        size = extent[:, None, None, axis]
        place = number[:, None] if axis == 0 else number[None]
        move = torch.zeros(len(boxes), *bins, dtype=torch.float64)
        if offset is not None:
            rows, columns = (
                torch.arange(many) * few // many for many, few in zip(bins, parts, strict=True)
            )
            of_bins = offset.detach().double().cpu()[:, :, rows[:, None], columns]
            move = of_bins[:, 1 - axis] * offset_scale * size
        start.append(edge + place * size / count + move)
        end.append(start[-1] + size / count)
    return torch.stack([start[1], start[0], end[1], end[0]], dim=-1)


def _rounded(values: Tensor) -> Tensor:
    """To whole numbers, halves away from zero."""
    return values.sign() * (values.abs() + 0.5).floor()
