"""How far apart the taps of deformable convolutions are."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from deformops.analysis.sampling import taps_of
from deformops.analysis.windows import Window


def effective_dilation(
    offset: Tensor, kernel_size: int | tuple[int, int] = 3, dilation: int | tuple[int, int] = 1
) -> Tensor:
    """Computes how far apart the taps of a deformable convolution are.

    It is the mean distance of all adjacent pairs of sampling points, 12 of them in a window of 3x3;
    a regular window of dilation d has effective dilation d.

    Args:
        offset: [N, 2 * G * kH * kW, oH, oW].
        kernel_size: taps on each axis, one number or (y, x).
        dilation: of the regular taps.

    Returns:
        [N, G, oH, oW] in pixels.

    Raises:
        ValueError: the window has a single tap, or the shape of ``offset`` does not fit.

    Example:
        >>> effective_dilation(torch.zeros(1, 18, 4, 4), dilation=2)[0, 0, 0, 0]
        tensor(2.)

    Source: Dai et al., Deformable Convolutional Networks, 2017.
    """
    window = Window(kernel_size, dilation=dilation)
    rows, columns = (window.axis(axis)[0] for axis in (0, 1))
    if rows * columns == 1:
        raise ValueError("kernel_size: a single tap has no neighbour")
    if offset.ndim != 4 or offset.shape[1] % (2 * rows * columns) or not offset.shape[1]:
        raise ValueError(
            f"offset: expected [N, 2 * G * {rows * columns}, oH, oW], got {list(offset.shape)}"
        )
    n, _, height, width = offset.shape
    taps = taps_of(window).to(offset).reshape(rows, columns, 2, 1, 1)
    points = offset.reshape(n, -1, rows, columns, 2, height, width) + taps
    below = (points[:, :, 1:] - points[:, :, :-1]).flatten(2, 3)
    right = (points[:, :, :, 1:] - points[:, :, :, :-1]).flatten(2, 3)
    y, x = torch.cat([below, right], dim=2).unbind(3)
    return torch.hypot(y, x).mean(dim=2)


class Spread(NamedTuple):
    """Of several filters: how many, the mean of their effective dilations, and the deviation."""

    filters: int
    mean: float
    std: float


def effective_dilation_by_size(
    dilation: Tensor, places: Tensor, boxes: Tensor, sizes: tuple[float, float] = (32, 96)
) -> dict[str, Spread]:
    """Sums up effective dilations by the size of the object that a filter is on.

    A filter is on the object whose box its centre lies in, on the smallest of several; on none it
    is on the background. Deformable layers that were trained spread more on larger objects.

    Args:
        dilation: [..., oH, oW], of `effective_dilation`; what is in front are filters, too.
        places: [oH, oW, 2 (y, x)], the centres of the filters in pixels of the image, for one as
            `Footprint.places` has them.
        boxes: [L, 4] of (x1, y1, x2, y2), in pixels of the image, ends included.
        sizes: an object is small whose box has an area below the square of the first, large from
            the square of the second on. Those of the COCO benchmark by default.

    Returns:
        "small", "medium", "large" and "background"; mean and deviation are NaN where there is no
        filter.

    Raises:
        ValueError: a shape does not fit.

    Source: Dai et al., Deformable Convolutional Networks, 2017, table 2.
    """
    if places.shape != (*dilation.shape[-2:], 2):
        raise ValueError(f"places: expected {[*dilation.shape[-2:], 2]}, got {list(places.shape)}")
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes: expected [L, 4], got {list(boxes.shape)}")
    y, x = places.double().cpu()[..., None].unbind(-2)  # [oH, oW, 1]
    x1, y1, x2, y2 = boxes.double().cpu().unbind(1)
    on = (x >= x1) & (x <= x2) & (y >= y1) & (y <= y2)  # [oH, oW, L]
    area = torch.where(on, (x2 - x1 + 1) * (y2 - y1 + 1), torch.inf)
    smallest = torch.cat([area, torch.full_like(x, torch.inf)], dim=-1).amin(-1)
    small, large = (size**2 for size in sizes)
    classes = {
        "small": smallest < small,
        "medium": (smallest >= small) & (smallest < large),
        "large": (smallest >= large) & smallest.isfinite(),
        "background": smallest.isinf(),
    }
    return {name: _spread(dilation[..., where]) for name, where in classes.items()}


def _spread(values: Tensor) -> Spread:
    values = values.double()
    if not values.numel():
        return Spread(0, math.nan, math.nan)
    return Spread(values.numel(), float(values.mean()), float(values.std(correction=0)))
