"""Where a stack of deformable convolutions looks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deformops.analysis.windows import Window


def sampling_points(
    windows: Sequence[Window],
    offsets: Sequence[Tensor | None],
    position: tuple[float, float] | Tensor,
    *,
    offset_group: int = 0,
) -> Tensor:
    """Computes all places of the input that one output of a stack reads.

    From the last layer down, each point p becomes the points of its taps i,

        p * stride - padding + i * dilation + offset_i(p),

    so that L layers of K taps give K^L points: 729 for three layers of 3x3. Points fall between
    pixels; there an offset is interpolated bilinearly (beyond the map: the nearest value). So
    offsets that are constant over the map move every point by exactly the sum over layers of offset
    times the strides below.

    Args:
        windows: from the input to the output.
        offsets: for each layer [2 * G * K, oH, oW] (y before x at each tap, as for
            `deform_conv2d`), or None for a layer of regular taps.
        position: (y, x) in the output of the last layer, or [P, 2] of them; fractions are allowed.
        offset_group: the group whose offsets are followed, in every layer.

    Returns:
        [K_1 * ... * K_L, 2] places (y, x) in pixels of the input, in float64; [P, ..., 2] for
        several positions. Points of the last layer's first tap come first, and so on down.

    Raises:
        ValueError: the number of offsets or the shape of one does not fit; the message names it.

    Example:
        >>> layer = Window(3, padding=1)
        >>> sampling_points([layer] * 3, [None] * 3, (20, 30)).shape
        torch.Size([729, 2])

    Source: the pictures of sampling locations in Dai et al., Deformable Convolutional Networks,
    2017.
    """
    if len(windows) != len(offsets):
        raise ValueError(
            f"offsets: expected one entry for each of {len(windows)} windows, got {len(offsets)}"
        )
    start = torch.as_tensor(position, dtype=torch.float64)
    if start.ndim not in (1, 2) or start.shape[-1] != 2:
        raise ValueError(f"position: expected (y, x) or [P, 2], got shape {list(start.shape)}")
    points = start.reshape(-1, 1, 2)  # [position, point, 2 (y, x)]
    layers = list(zip(windows, offsets, strict=True))
    for index, (window, offset) in reversed(list(enumerate(layers))):
        taps = taps_of(window)  # [tap, 2]
        stride, padding = (_both(window, entry) for entry in (1, 2))
        moved = (points * stride - padding).unsqueeze(2) + taps
        if offset is not None:
            field = _group_field(offset, len(taps), offset_group, f"offsets[{index}]")
            moved = moved + _interpolate(field, points)
        points = moved.flatten(1, 2)
    return points if start.ndim == 2 else points[0]


def _both(window: Window, entry: int) -> Tensor:
    return torch.tensor([window.axis(axis)[entry] for axis in (0, 1)], dtype=torch.float64)


def taps_of(window: Window) -> Tensor:
    """Returns the places of the taps relative to the first, [K, 2 (y, x)], row by row."""
    axes = []
    for axis in (0, 1):
        kernel, _, _, dilation = window.axis(axis)
        axes.append(torch.arange(kernel, dtype=torch.float64) * dilation)
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 2)


def _group_field(offset: Tensor, taps: int, group: int, name: str) -> Tensor:
    """Returns the offsets of one group, [K, 2 (y, x), oH, oW]."""
    if offset.ndim != 3 or offset.shape[0] % (2 * taps) or not offset.numel():
        raise ValueError(f"{name}: expected [2 * G * {taps}, oH, oW], got {list(offset.shape)}")
    groups = offset.shape[0] // (2 * taps)
    if not 0 <= group < groups:
        raise ValueError(f"offset_group: {name} has {groups} groups, got {group}")
    return offset.detach().double().cpu().reshape(groups, taps, 2, *offset.shape[1:])[group]


def _interpolate(field: Tensor, points: Tensor) -> Tensor:
    """Reads [K, 2, H, W] bilinearly at [P, Q, 2 (y, x)]; beyond the map, its border.

    Returns:
        [P, Q, K, 2].
    """
    last = torch.tensor(field.shape[-2:], dtype=torch.float64) - 1
    inside = torch.minimum(points.clamp(min=0), last)
    # A point that is not a number reads somewhere; its fraction makes the result not a number.
    low = torch.minimum(inside.nan_to_num().floor(), (last - 1).clamp(min=0))
    fraction = inside - low
    (y0, x0), (y1, x1) = low.long().unbind(-1), torch.minimum(low + 1, last).long().unbind(-1)
    fy, fx = fraction.unbind(-1)
    top = field[:, :, y0, x0] * (1 - fx) + field[:, :, y0, x1] * fx  # [K, 2, P, Q]
    bottom = field[:, :, y1, x0] * (1 - fx) + field[:, :, y1, x1] * fx
    return (top * (1 - fy) + bottom * fy).permute(2, 3, 0, 1)
