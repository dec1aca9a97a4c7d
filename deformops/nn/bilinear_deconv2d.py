"""BilinearDeconv2d: a transposed convolution whose fixed filter interpolates."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def bilinear_filter(
    kernel_size: int,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The filter with which a transposed convolution interpolates between two centres.

        f = (k + 1) // 2        c = f - 1 if k is odd, else f - 0.5
        filter[y, x] = (1 - |y - c| / f) * (1 - |x - c| / f)

    Args:
        kernel_size: k.
        device: where it is made.
        dtype: its type.

    Returns:
        [k, k].

    Raises:
        ValueError: `kernel_size` is below 1.

    Example:
        >>> bilinear_filter(4)[1]
        tensor([0.1875, 0.5625, 0.5625, 0.1875])

    Source: Caffe's BilinearFiller; Long, Shelhamer and Darrell, Fully Convolutional Networks for
    Semantic Segmentation (2015), section 4.4.
    """
    if kernel_size < 1:
        raise ValueError(f"bilinear_filter: kernel_size: expected at least 1, got {kernel_size}")
    factor = (kernel_size + 1) // 2
    center = factor - 1 if kernel_size % 2 else factor - 0.5
    tap = torch.arange(kernel_size, device=device, dtype=dtype or torch.get_default_dtype())
    ramp = 1 - (tap - center).abs() / factor
    return ramp[:, None] * ramp


class BilinearDeconv2d(nn.Module):
    """Bilinear interpolation as a transposed convolution with a fixed filter.

    Output o lies at (o - (kernel_size - 1) / 2) / stride of the input; with a kernel of twice the
    stride each output lies between the centres of two inputs. The weight is a parameter, so that it
    is saved and counted, but does not learn.

    Args:
        channels: C.
        kernel_size: k.
        stride: outputs from one input to the next.
        dense: keep a weight [C, C, k, k] with the filter on the diagonal of the channels and zeros
            elsewhere, as Caffe does, instead of [C, 1, k, k]: the same result at C times the cost.
        device: where the weight is made.
        dtype: its type.

    Shapes: input [N, C, H, W], output [N, C, (H - 1) * stride + k, (W - 1) * stride + k].

    Raises:
        ValueError: a number is below 1.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        stride: int,
        *,
        dense: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, value in (
            ("channels", channels),
            ("kernel_size", kernel_size),
            ("stride", stride),
        ):
            if value < 1:
                raise ValueError(f"BilinearDeconv2d: {name}: expected at least 1, got {value}")
        self.channels = channels
        self.kernel_size = kernel_size
        self.stride = stride
        self.dense = dense
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        shape = (channels, channels if dense else 1, kernel_size, kernel_size)
        self.weight = nn.Parameter(torch.empty(shape, **factory), requires_grad=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fills in the filter."""
        weight = self.weight.data
        taps = bilinear_filter(self.kernel_size, device=weight.device, dtype=weight.dtype)
        if self.dense:
            weight.zero_()
            weight.diagonal().copy_(taps[:, :, None].expand(-1, -1, self.channels))
        else:
            weight.copy_(taps.expand_as(weight))

    def forward(self, input: Tensor) -> Tensor:
        """Interpolates [N, C, H, W]."""
        groups = 1 if self.dense else self.channels
        return F.conv_transpose2d(input, self.weight, stride=self.stride, groups=groups)

    def extra_repr(self) -> str:
        """What the constructor was told."""
        text = f"{self.channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        return f"{text}, dense=True" if self.dense else text
