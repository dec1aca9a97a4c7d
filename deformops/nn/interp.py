"""Interp: bilinear resizing that keeps the corners, as DeepLab's Caffe does."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Interp(nn.Module):
    """Resizes so that the corner pixels stay at the corners: first shrinks, then zooms.

        n -> (n - 1) // shrink + 1 -> (that - 1) * zoom + 1

    Args:
        shrink: the factor by which distances become smaller.
        zoom: the factor by which they become larger after that.

    Shapes: input [N, C, H, W], output [N, C, oH, oW].

    Raises:
        ValueError: a factor below 1.

    Example:
        >>> Interp(shrink=4, zoom=3).size(321)
        241

    Source: the layer `Interp` of DeepLab's Caffe.
    """

    def __init__(self, shrink: int = 1, zoom: int = 1) -> None:
        super().__init__()
        for name, factor in (("shrink", shrink), ("zoom", zoom)):
            if factor < 1:
                raise ValueError(f"Interp: {name}: expected at least 1, got {factor}")
        self.shrink = shrink
        self.zoom = zoom

    def size(self, size: int) -> int:
        """The output's size on an axis where the input has `size` pixels."""
        return (size - 1) // self.shrink * self.zoom + 1

    def forward(self, input: Tensor) -> Tensor:
        """Resizes [N, C, H, W]."""
        height, width = input.shape[-2:]
        return interp(input, (self.size(height), self.size(width)))

    def extra_repr(self) -> str:
        """What the constructor was told."""
        return f"shrink={self.shrink}, zoom={self.zoom}"


def interp(input: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes [N, C, H, W] to [N, C, *size], bilinear, corner pixels on corner pixels."""
    if tuple(input.shape[-2:]) == tuple(size):
        return input
    return F.interpolate(input, size, mode="bilinear", align_corners=True)
