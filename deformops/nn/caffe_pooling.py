"""Pooling with Caffe's geometry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from deformops.ops._sampling import pair


class _CaffePool2d(nn.Module):
    """Windows that begin inside the input or the padding before it; the last may end behind it."""

    outside: ClassVar[float]
    """What is read in the padding."""

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.kernel_size = pair("kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else pair("stride", stride)
        self.padding = pair("padding", padding)
        for kernel, step, around in zip(self.kernel_size, self.stride, self.padding, strict=True):
            if kernel < 1 or step < 1 or not 0 <= around < kernel:
                raise ValueError(
                    f"{type(self).__name__}: expected kernel_size and stride of at least 1 and "
                    f"padding from 0 to kernel_size - 1, got {kernel}, {step} and {around}"
                )

    def output_size(self, size: int, axis: int = 0) -> int:
        """How many windows there are on axis 0 (y) or 1 (x) of `size` pixels."""
        kernel, stride, padding = self.kernel_size[axis], self.stride[axis], self.padding[axis]
        count = -(-(size + 2 * padding - kernel) // stride) + 1
        return count - 1 if (count - 1) * stride >= size + padding else count

    def _pooled(self, pool: Callable[..., Any], input: Tensor) -> Tensor:
        y, x = self.padding
        if 2 * y <= self.kernel_size[0] and 2 * x <= self.kernel_size[1]:
            return pool(input, self.kernel_size, self.stride, self.padding, ceil_mode=True)
        # torch has no such padding: it is made here, and windows that begin in it are left out.
        padded = F.pad(input, (x, x, y, y), value=self.outside)
        height, width = (self.output_size(input.shape[axis - 2], axis) for axis in (0, 1))
        return pool(padded, self.kernel_size, self.stride, ceil_mode=True)[..., :height, :width]

    def extra_repr(self) -> str:
        """What the constructor was told."""
        return f"{self.kernel_size}, stride={self.stride}, padding={self.padding}"


class CaffeMaxPool2d(_CaffePool2d):
    """Maximum over windows, as many as Caffe has.

        oH = ceil((H + 2 * padding - kernel_size) / stride) + 1,
             one less if the last window would begin in the padding behind the input

    Args:
        kernel_size: of the windows, one number or (y, x).
        stride: pixels from one window to the next; None: `kernel_size`.
        padding: pixels around the input, less than `kernel_size`; they are never the maximum.

    Shapes: input [N, C, H, W], output [N, C, oH, oW].

    Raises:
        ValueError: a number is out of range.

    Source: Caffe's pooling layer.
    """

    outside = -float("inf")

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, oH, oW]."""
        return self._pooled(F.max_pool2d, input)


class CaffeAvgPool2d(_CaffePool2d):
    """Mean over windows, as many as Caffe has; the padding counts as zeros.

    The windows are those of `CaffeMaxPool2d`. A window's divisor is how many of its pixels lie in
    the input or its padding: what the last window has behind both does not count.

    Args:
        kernel_size: of the windows, one number or (y, x).
        stride: pixels from one window to the next; None: `kernel_size`.
        padding: pixels around the input, less than `kernel_size`.

    Shapes: input [N, C, H, W], output [N, C, oH, oW].

    Raises:
        ValueError: a number is out of range.

    Source: Caffe's pooling layer.
    """

    outside = 0.0

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, oH, oW]."""
        return self._pooled(F.avg_pool2d, input)
