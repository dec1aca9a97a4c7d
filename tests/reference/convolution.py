"""Convolutions written as sums, and the gradients of the deformable one written as formulas."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tests.reference.columns import (
    Geometry,
    contract_columns,
    gather_columns,
    output_size,
    scatter_columns,
)

Array = NDArray[np.float64]
Pair = tuple[int, int]


def atrous_conv2d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """Dilated convolution, one output number at a time."""
    batch, _, height, width = input.shape
    out_channels, group_channels, kernel_h, kernel_w = weight.shape
    geometry = Geometry((kernel_h, kernel_w), stride, padding, dilation)
    out_h, out_w = output_size((height, width), geometry)
    output = np.zeros((batch, out_channels, out_h, out_w))
    for n, co, oy, ox in np.ndindex(*output.shape):
        first = (co // (out_channels // groups)) * group_channels
        total = 0.0 if bias is None else float(bias[co])
        for c, i, j in np.ndindex(group_channels, kernel_h, kernel_w):
            y = oy * stride[0] - padding[0] + i * dilation[0]
            x = ox * stride[1] - padding[1] + j * dilation[1]
            if 0 <= y < height and 0 <= x < width:
                total += weight[co, c, i, j] * input[n, first + c, y, x]
        output[n, co, oy, ox] = total
    return output


def insert_holes(weight: Array, dilation: Pair) -> Array:
    """The kernel of ``(k - 1) d + 1`` taps whose new taps are zero."""
    out_channels, channels, kernel_h, kernel_w = weight.shape
    spread = np.zeros(
        (out_channels, channels, (kernel_h - 1) * dilation[0] + 1, (kernel_w - 1) * dilation[1] + 1)
    )
    for i in range(kernel_h):
        for j in range(kernel_w):
            spread[:, :, i * dilation[0], j * dilation[1]] = weight[:, :, i, j]
    return spread


def _by_group(weight: Array, channels: int) -> Array:
    """``[groups, Co/groups, C/groups, K]``."""
    out_channels, group_channels, kernel_h, kernel_w = weight.shape
    groups = channels // group_channels if group_channels else 1
    return weight.reshape(groups, out_channels // groups, group_channels, kernel_h * kernel_w)


def deform_conv2d(
    input: Array,
    offset: Array | None,
    weight: Array,
    bias: Array | None,
    mask: Array | None,
    geometry: Geometry,
) -> Array:
    """``output[n,co,p] = bias[co] + sum_ck weight[co,c,k] * columns[n,c,k,p]``."""
    batch, channels = input.shape[:2]
    kernels = _by_group(weight, channels)
    groups, group_out, group_in, taps = kernels.shape
    columns = gather_columns(input, offset, mask, geometry)
    out = columns.shape[-2:]
    columns = columns.reshape(batch, groups, group_in, taps, *out)
    output = np.einsum("gock,ngckpq->ngopq", kernels, columns)
    output = output.reshape(batch, groups * group_out, *out)
    return output if bias is None else output + bias[:, None, None]


@dataclass(frozen=True)
class DeformConv2dGradients:
    """Gradients with the shapes of what they belong to; None where there was no such argument."""

    input: Array
    offset: Array | None
    weight: Array
    bias: Array
    mask: Array | None


def deform_conv2d_backward(
    grad_output: Array,
    input: Array,
    offset: Array | None,
    weight: Array,
    mask: Array | None,
    geometry: Geometry,
) -> DeformConv2dGradients:
    """The chain rule by hand.

    With ``d[n,c,k,p] = sum_co weight[co,c,k] grad_output[n,co,p]``: the input gets the scatter of
    ``mask d``, the mask ``sum_c d read``, an offset ``mask sum_c d slope`` (slope on its own axis,
    the second derivative of a hat being zero), the weight ``sum_np grad_output mask read``.
    """
    batch, channels = input.shape[:2]
    kernels = _by_group(weight, channels)
    groups, group_out, group_in, taps = kernels.shape
    out = grad_output.shape[-2:]
    grouped = grad_output.reshape(batch, groups, group_out, *out)
    pulled = np.einsum("gock,ngopq->ngckpq", kernels, grouped).reshape(batch, channels, taps, *out)

    columns = gather_columns(input, offset, mask, geometry)
    columns = columns.reshape(batch, groups, group_in, taps, *out)
    grad_weight = np.einsum("ngopq,ngckpq->gock", grouped, columns).reshape(weight.shape)

    grad_offset = None
    if offset is not None:
        offset_groups = offset.shape[1] // (2 * taps)
        grad_offset = np.zeros_like(offset)
        for axis in (0, 1):
            if geometry.order[axis] == 1:
                continue
            order = (1, geometry.order[1]) if axis == 0 else (geometry.order[0], 1)
            slope = contract_columns(
                input, pulled, offset, offset_groups, replace(geometry, order=order)
            )
            grad_offset[:, axis::2] = slope if mask is None else mask * slope

    grad_mask = None
    if mask is not None:
        offset_groups = mask.shape[1] // taps
        grad_mask = contract_columns(input, pulled, offset, offset_groups, geometry)

    return DeformConv2dGradients(
        input=scatter_columns(pulled, offset, mask, input.shape[-2:], geometry),
        offset=grad_offset,
        weight=grad_weight,
        bias=grad_output.sum((0, 2, 3)),
        mask=grad_mask,
    )
