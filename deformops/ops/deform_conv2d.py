"""deform_conv2d: convolution whose taps move."""

from __future__ import annotations

import torch
from torch import Tensor

from deformops.ops._convolution import deform_conv2d_shape
from deformops.ops._sampling import Sampling, pair
from deformops.ops._switches import tf32


def deform_conv2d(
    input: Tensor,
    offset: Tensor | None,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    mask: Tensor | None = None,
    *,
    border: str = "v2",
    kink: str = "inner",
) -> Tensor:
    """Convolves with taps that are moved by offsets and weighed by a mask.

    For output pixel (y, x), the tap in row i and column j of the kernel reads the input at

        (y * stride - padding + i * dilation + offset_y,
         x * stride - padding + j * dilation + offset_x)

    by bilinear interpolation, and weighs it by the mask; the rest is a convolution:

        output[n, o, y, x] = bias[o]
            + sum over c, i, j of weight[o, c, i, j] * mask * input(n, c, that point)

    The arguments are those of `torchvision.ops.deform_conv2d`. With offset None, or zero, and no
    mask it is `torch.nn.functional.conv2d`.

    The channels of `offset`, for G offset groups and a kernel of kH x kW, y before x at each tap:

        channel    0     1     2     3           2K-2  2K-1    2K   2K+1       K = kH * kW taps
                +-----+-----+-----+-----+- ... -+-----+-----+-----+-----+- ...
                |  y  |  x  |  y  |  x  |       |  y  |  x  |  y  |  x  |      y: down, x: right,
                +-----+-----+-----+-----+- ... -+-----+-----+-----+-----+- ... in input pixels
        tap     |  (0, 0)   |  (0, 1)   |       |(kH-1,kW-1)|  (0, 0)   |
        group   |                   0                       |     1       ...

    that is, channel 2 * (group * K + i * kW + j) + {0: y, 1: x}; those of `mask` are
    group * K + i * kW + j. Offset group g moves input channels g * C / G to (g + 1) * C / G - 1.

    A NaN in an offset makes NaN of the output pixels and gradients that depend on it; a tap moved
    to infinity reads 0. float16 and bfloat16 compute coordinates and sums in float32; on a GPU,
    samples (times mask) are rounded to the type before tensor cores multiply them. Inside
    `torch.autocast` the type is autocast's, but float32 if the offset comes in float32: half types
    hold an offset of some pixels in steps of 1/32 (bfloat16) or 1/256 (float16).

    Args:
        input: [N, C, H, W].
        offset: [N, 2 * G * kH * kW, oH, oW], or None.
        weight: [O, C / groups, kH, kW]; the number of groups follows from it.
        bias: [O].
        stride: pixels from one window to the next, one number or (y, x).
        padding: zeros around the input.
        dilation: pixels from one tap to the next.
        mask: [N, G * kH * kW, oH, oW]; absent: 1 everywhere (DCN v1).
        border: "v2" (DCN v2, torchvision, mmcv): what is read fades to 0 over one pixel outside
            the input. "v1" (the code of 2017, MXNet): only points inside [0, H) x [0, W) read, and
            those beyond the last pixel read that pixel.
        kink: the derivative with respect to an offset where a tap is exactly at -1 and fading
            begins, as with zero offsets and padding 1: "inner" (torchvision), the slope inside;
            "zero" (mmcv).

    Returns:
        [N, O, oH, oW], channels_last if the input is.

    Raises:
        ValueError: a shape, size or option does not fit; the message names it.
        TypeError: an argument has the wrong type, or the tensors have different types.

    Example:
        >>> image, weight = torch.ones(1, 1, 5, 5), torch.ones(1, 1, 3, 3)
        >>> deformops.deform_conv2d(image, torch.zeros(1, 18, 3, 3), weight)[0, 0, 0, 0]
        tensor(9.)

    Sources: Dai et al., Deformable Convolutional Networks (2017); Zhu et al., Deformable ConvNets
    v2 (2019).
    """
    sampling = Sampling(
        pair("stride", stride),
        pair("padding", padding),
        pair("dilation", dilation),
        border=border,
        kink=kink,
    )
    try:
        return torch.ops.deformops.deform_conv2d(
            input, offset, weight, bias, mask, *sampling, **tf32(input)
        )
    except RuntimeError:
        deform_conv2d_shape(input, offset, weight, bias, mask, sampling)
        raise
