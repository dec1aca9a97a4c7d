"""Gather, scatter and contract: index, its transpose, and the mask's derivative."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.reference.interpolation import axis_weights

Array = NDArray[np.float64]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """Where a window looks. Pairs are (vertical, horizontal)."""

    kernel_size: Pair = (3, 3)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    order: Pair = (0, 0)
    border: str = "v2"
    kink: str = "inner"

    @property
    def taps(self) -> int:
        return self.kernel_size[0] * self.kernel_size[1]


def output_size(input_size: Pair, geometry: Geometry) -> Pair:
    """Number of window positions on each axis: ``(n + 2 p - d (k - 1) - 1) // s + 1``."""

    def along(axis: int) -> int:
        reach = geometry.dilation[axis] * (geometry.kernel_size[axis] - 1) + 1
        room = input_size[axis] + 2 * geometry.padding[axis] - reach
        return room // geometry.stride[axis] + 1

    return along(0), along(1)


def _offset_groups(geometry: Geometry, offset: Array | None, mask: Array | None) -> int:
    if offset is not None:
        return offset.shape[1] // (2 * geometry.taps)
    if mask is not None:
        return mask.shape[1] // geometry.taps
    return 1


def _points(
    geometry: Geometry, offset: Array | None, batch: int, groups: int, out: Pair
) -> tuple[Array, Array]:
    """Coordinates ``[N, G, K, oH, oW]`` (y, x) of every tap, in pixels of the input."""
    kernel_h, kernel_w = geometry.kernel_size
    y = np.zeros((batch, groups, geometry.taps, *out))
    x = np.zeros_like(y)
    for i in range(kernel_h):
        for j in range(kernel_w):
            tap = i * kernel_w + j
            for row in range(out[0]):
                start = row * geometry.stride[0] - geometry.padding[0]
                y[:, :, tap, row, :] = start + i * geometry.dilation[0]
            for column in range(out[1]):
                start = column * geometry.stride[1] - geometry.padding[1]
                x[:, :, tap, :, column] = start + j * geometry.dilation[1]
            if offset is not None:
                for group in range(groups):
                    channel = 2 * (group * geometry.taps + tap)
                    y[:, group, tap] += offset[:, channel]
                    x[:, group, tap] += offset[:, channel + 1]
    return y, x


def _weights(
    geometry: Geometry,
    offset: Array | None,
    batch: int,
    groups: int,
    input_size: Pair,
    out: Pair,
) -> tuple[Array, Array]:
    y, x = _points(geometry, offset, batch, groups, out)
    border, kink = geometry.border, geometry.kink
    return (
        axis_weights(y, input_size[0], geometry.order[0], border, kink),
        axis_weights(x, input_size[1], geometry.order[1], border, kink),
    )


def gather_columns(
    input: Array, offset: Array | None, mask: Array | None, geometry: Geometry
) -> Array:
    """Read every tap: input ``[N, C, H, W]`` to columns ``[N, C, K, oH, oW]``.

    ``columns[n,c,k,p] = mask[n,g,k,p] * sum_yx A_y[n,g,k,p,y] * A_x[n,g,k,p,x] * input[n,c,y,x]``,
    with ``g`` the offset group of channel ``c``.
    """
    batch, channels, height, width = input.shape
    groups = _offset_groups(geometry, offset, mask)
    out = output_size((height, width), geometry)
    rows, cols = _weights(geometry, offset, batch, groups, (height, width), out)
    image = input.reshape(batch, groups, channels // groups, height, width)
    columns = np.einsum("ngcyx,ngkpqy,ngkpqx->ngckpq", image, rows, cols, optimize=True)
    if mask is not None:
        columns = columns * mask.reshape(batch, groups, 1, geometry.taps, *out)
    return columns.reshape(batch, channels, geometry.taps, *out)


def scatter_columns(
    columns: Array,
    offset: Array | None,
    mask: Array | None,
    input_size: Pair,
    geometry: Geometry,
) -> Array:
    """Add every tap to where it was read: the transpose of :func:`gather_columns`.

    A NaN point reads no pixel, so nothing comes back from it.
    """
    batch, channels = columns.shape[:2]
    groups = _offset_groups(geometry, offset, mask)
    out = output_size(input_size, geometry)
    rows, cols = _weights(geometry, offset, batch, groups, input_size, out)
    lost: NDArray[np.bool_] = np.isnan(rows.sum(-1) + cols.sum(-1))
    rows = np.where(lost[..., None], 0.0, rows)
    cols = np.where(lost[..., None], 0.0, cols)
    parts = columns.reshape(batch, groups, channels // groups, geometry.taps, *out)
    if mask is not None:
        parts = parts * mask.reshape(batch, groups, 1, geometry.taps, *out)
    parts = np.where(lost[:, :, None], 0.0, parts)
    image = np.einsum("ngckpq,ngkpqy,ngkpqx->ngcyx", parts, rows, cols, optimize=True)
    return image.reshape(batch, channels, *input_size)


def contract_columns(
    input: Array,
    columns: Array,
    offset: Array | None,
    offset_groups: int,
    geometry: Geometry,
) -> Array:
    """Sum over a group's channels of ``columns`` times what the taps read: ``[N, G*K, oH, oW]``."""
    batch, channels, height, width = input.shape
    out = output_size((height, width), geometry)
    rows, cols = _weights(geometry, offset, batch, offset_groups, (height, width), out)
    image = input.reshape(batch, offset_groups, channels // offset_groups, height, width)
    read = np.einsum("ngcyx,ngkpqy,ngkpqx->ngckpq", image, rows, cols, optimize=True)
    product = read * columns.reshape(read.shape)
    return product.sum(2).reshape(batch, offset_groups * geometry.taps, *out)
