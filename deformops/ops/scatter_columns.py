"""scatter_columns: the re-index stage, the transpose of gather_columns."""

from __future__ import annotations

import torch
from torch import Tensor

from deformops.ops._columns import scatter_columns_shape
from deformops.ops._sampling import Sampling, pair
from deformops.ops._switches import deterministic


def scatter_columns(
    columns: Tensor,
    input_size: int | tuple[int, int],
    kernel_size: int | tuple[int, int],
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    offset: Tensor | None = None,
    mask: Tensor | None = None,
    border: str = "v2",
    kink: str = "inner",
) -> Tensor:
    """Adds columns to the pixels that `gather_columns` would read them from (col2im).

    It is the transpose of `gather_columns` with the same arguments,

        <gather_columns(x, ...), columns> = <x, scatter_columns(columns, ...)>,

    hence without offset and mask `torch.nn.functional.fold`, and a transposed convolution after a
    matrix product.

    Args:
        columns: [N, C, kH * kW, oH, oW].
        input_size: height and width (H, W) of the result; they have to give oH, oW.
        kernel_size: taps (kH, kW), or one number for both.
        stride: pixels from one window to the next.
        padding: zeros around the result, cut off.
        dilation: pixels from one tap to the next.
        offset: [N, 2 * G * kH * kW, oH, oW], in pixels; see `deform_conv2d` for the order of its
            channels. Each of G offset groups moves C / G channels.
        mask: [N, G * kH * kW, oH, oW], a weight for each tap.
        border: where a tap outside adds; see `deform_conv2d`.
        kink: the slope of a tap exactly one pixel outside; see `deform_conv2d`.

    Returns:
        [N, C, H, W].

    Raises:
        ValueError: a shape, size or option does not fit; the message names it.
        TypeError: an argument has the wrong type, or the tensors have different types.

    Example:
        >>> deformops.scatter_columns(torch.ones(1, 1, 4, 2, 2), 3, 2)[0, 0]
        tensor([[1., 2., 1.],
                [2., 4., 2.],
                [1., 2., 1.]])
    """
    size = pair("kernel_size", kernel_size)
    target = pair("input_size", input_size)
    sampling = Sampling(
        pair("stride", stride),
        pair("padding", padding),
        pair("dilation", dilation),
        border=border,
        kink=kink,
    )
    try:
        return torch.ops.deformops.scatter_columns(
            columns, offset, mask, target, size, *sampling, **deterministic()
        )
    except RuntimeError:
        scatter_columns_shape(columns, offset, mask, target, size, sampling)
        raise
