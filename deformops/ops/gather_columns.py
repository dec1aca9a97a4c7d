"""gather_columns: the index stage of every convolution."""

from __future__ import annotations

import torch
from torch import Tensor

from deformops.ops._columns import gather_columns_shape
from deformops.ops._sampling import Sampling, pair


def gather_columns(
    input: Tensor,
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
    """Reads what a window of taps sees at each output pixel (im2col, with moving taps).

    Without offset and mask these are the numbers of `torch.nn.functional.unfold`, in another shape:
    for tap k = i * kW + j,

        columns[n, c, k, y, x] = mask * input(n, c, y * stride - padding + i * dilation + offset_y,
                                                    x * stride - padding + j * dilation + offset_x)

    where input(n, c, ...) reads bilinearly, and 0 outside. `scatter_columns` is its transpose.

    Args:
        input: [N, C, H, W].
        kernel_size: taps (kH, kW), or one number for both.
        stride: pixels from one window to the next.
        padding: zeros around the input.
        dilation: pixels from one tap to the next.
        offset: [N, 2 * G * kH * kW, oH, oW], in pixels of the input; see `deform_conv2d` for the
            order of its channels. Each of G offset groups moves C / G channels.
        mask: [N, G * kH * kW, oH, oW], a weight for each tap.
        border: how a tap reads outside the input; see `deform_conv2d`.
        kink: the slope of a tap exactly one pixel outside; see `deform_conv2d`.

    Returns:
        [N, C, kH * kW, oH, oW].

    Raises:
        ValueError: a shape, size or option does not fit; the message names it.
        TypeError: an argument has the wrong type, or the tensors have different types.

    Example:
        >>> image = torch.arange(16.0).reshape(1, 1, 4, 4)
        >>> deformops.gather_columns(image, 2, stride=2)[0, 0, :, 0, 0]
        tensor([0., 1., 4., 5.])
    """
    size = pair("kernel_size", kernel_size)
    sampling = Sampling(
        pair("stride", stride),
        pair("padding", padding),
        pair("dilation", dilation),
        border=border,
        kink=kink,
    )
    try:
        return torch.ops.deformops.gather_columns(input, offset, mask, size, *sampling)
    except RuntimeError:
        gather_columns_shape(input, offset, mask, size, sampling)
        raise
